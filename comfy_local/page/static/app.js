// Starts the page: reads the list of templates, shows the view that the address names.

import { CallError, bakedCatalog, call, connection, listTemplates, loadTemplate, pause } from "./api.js";
import { openConnectionDialog } from "./connection_dialog.js";
import { announce, h, icon } from "./dom.js";
import { inspectWorkflow, workflowInFile } from "./dropped_workflow.js";
import { showGallery } from "./gallery.js";
import { JobFailure } from "./job.js";
import { Workbench } from "./workbench.js";

const HEALTH_MS = 10_000;
const RETRY_MS = 2000;
const main = document.getElementById("main");
const pill = document.getElementById("connection");
let catalog = null;
// What the next view shows: the request and the result of an entry of the history.
let toShow = null;
let shownCount = 0;

function show(element, title) {
  main.replaceChildren(element);
  document.title = title ? `${title} · comfy-worker` : "comfy-worker";
  scrollTo(0, 0);
}

function showMessage(title, text, ...actions) {
  show(h("div", { class: "empty page-message" }, icon("alert", 40), h("h1", { text: title }), h("p", { text }), ...actions), title);
  announce(`${title}. ${text}`);
}

function showLoading(text) {
  show(h("div", { class: "empty page-message" }, h("span", { class: "spinner", "aria-hidden": "true" }), h("p", { text })), "");
  announce(text);
}

function connect(problem = "") {
  if (document.querySelector("dialog[open]") !== null) return;
  openConnectionDialog(() => {
    catalog = null;
    showHealth();
    route();
  }, problem);
}

async function route() {
  shownCount += 1;
  const count = shownCount;
  if (!(await readCatalog(count))) return;
  const template = /^#\/template\/(.+)$/.exec(location.hash);
  if (template !== null) await showTemplate(decodeURIComponent(template[1]), count);
  else await showStart(count);
}

// Waits while ComfyUI starts. Returns whether there is a list and this view is still wanted.
async function readCatalog(count) {
  if (connection().target === "runpod" && !connection().endpoint) {
    showMessage("Which endpoint?", "Enter the id of your endpoint on RunPod and an API key.", h("button", { type: "button", class: "primary", text: "Connect", on: { click: () => connect() } }));
    return false;
  }
  if (catalog === null) showLoading("Loading the templates");
  // Models may have been installed since.
  else catalog = await listTemplates().catch(() => catalog);
  while (catalog === null && count === shownCount) {
    try {
      catalog = await listTemplates();
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      if (error.status === 401) {
        showMessage("An API key is needed", error.message, h("button", { type: "button", class: "primary", text: "Enter the key", on: { click: () => connect() } }));
        return false;
      }
      showLoading(error.message);
      await pause(error.retryAfterMs || RETRY_MS);
    }
  }
  return count === shownCount;
}

async function showStart(count) {
  const gallery = await showGallery(catalog, { onFile: openFile, onHistory: openHistory });
  if (count === shownCount) show(gallery, "");
}

async function showTemplate(name, count) {
  let entry;
  try {
    entry = await loadTemplate(name);
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    showMessage("This template cannot be shown", error.message, h("a", { href: "#/", text: "All templates" }));
    return;
  }
  if (count !== shownCount) return;
  if (!entry?.schema) {
    const reason = entry?.problem ?? entry?.description ?? `There is no template ${name}.`;
    showMessage("This template cannot be shown", reason, h("a", { href: "#/", text: "All templates" }));
    return;
  }
  openWorkbench(entry);
}

function openWorkbench(entry) {
  const workbench = new Workbench(entry, catalog, { onHistory: openHistory, onUnauthorized: () => connect("The key was refused."), onEnd: showHealth });
  show(workbench.element, entry.title || entry.name);
  if (toShow !== null) workbench.write(toShow);
  toShow = null;
  workbench.element.querySelector("h1").focus({ preventScroll: true });
}

async function openFile(file) {
  try {
    const { workflow, input } = await workflowInFile(file);
    if (typeof workflow === "string" && catalog.templates.some((row) => row.name === workflow)) {
      openRequest(workflow, { input });
      return;
    }
    await openWorkflow(file.name.replace(/\.\w+$/, ""), workflow, { input });
  } catch (error) {
    refuseFile(error);
  }
}

function refuseFile(error) {
  const back = h("a", { href: "#/", text: "All templates", on: { click: () => route() } });
  const code = error instanceof JobFailure ? `${error.code}: ` : "";
  const details = error instanceof JobFailure ? error.details.map((detail) => detail.problem).filter(Boolean) : [];
  const list = details.length > 0 ? [h("ul", {}, details.slice(0, 8).map((text) => h("li", { text })))] : [];
  showMessage("This workflow cannot be opened", `${code}${error.message}`, ...list, back);
}

async function openWorkflow(name, workflow, { input, result = null }) {
  shownCount += 1;
  const count = shownCount;
  showLoading("Reading the workflow");
  const { entry } = await inspectWorkflow(name, workflow, catalog);
  if (count !== shownCount) return;
  history.replaceState(null, "", "#/workflow");
  toShow = { input, result };
  openWorkbench(entry);
}

function openRequest(name, shown) {
  toShow = shown;
  const hash = `#/template/${encodeURIComponent(name)}`;
  if (location.hash === hash) route();
  else location.hash = hash;
}

function openHistory(entry) {
  if (entry.template !== null) {
    openRequest(entry.template, entry);
    return;
  }
  openWorkflow(entry.title, entry.input.workflow, entry).catch(refuseFile);
}

async function showHealth() {
  const text = document.getElementById("connection-text");
  const where = connection().target === "local" ? "This worker" : "RunPod";
  const state = (name, words, isReached = true) => {
    pill.dataset.state = name;
    text.replaceChildren(...(isReached ? [h("span", { class: "where", text: `${where} · ` })] : []), words);
  };
  if (connection().target === "runpod" && !connection().endpoint) return state("off", "Not connected", false);
  try {
    const { workers, jobs } = await call("GET", "health");
    const usable = workers.idle + workers.ready + workers.running;
    if (jobs.inQueue > 0) return state("busy", `${jobs.inQueue} waiting`);
    if (workers.running > 0) return state("busy", "busy");
    if (usable > 0) return state("ready", "ready");
    const sleeps = connection().target === "runpod" && workers.initializing === 0;
    return state("busy", sleeps ? "asleep" : "starting");
  } catch (error) {
    return state("off", error.status === 401 ? "Key needed" : "No answer", false);
  }
}

async function watchHealth() {
  for (;;) {
    if (!document.hidden) await showHealth();
    await pause(HEALTH_MS);
  }
}

pill.addEventListener("click", () => connect());
addEventListener("hashchange", () => {
  if (location.hash !== "#/workflow") route();
});
// A file that misses its field opens as a workflow, and never replaces the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (catalog !== null && event.dataTransfer.files[0] && main.querySelector(".gallery")) openFile(event.dataTransfer.files[0]);
});
document.documentElement.classList.toggle("baked", bakedCatalog() !== null);
if (location.hash === "#/workflow") history.replaceState(null, "", "#/");
route();
watchHealth();
