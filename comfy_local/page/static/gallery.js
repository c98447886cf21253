// The first view: all templates, a place to drop a workflow, and what was made lately.

import { h, icon } from "./dom.js";
import { historyEntries } from "./history.js";

const TABS = [["all", "All"], ["ready", "Ready"], ["image", "Images"], ["edit", "Edit"], ["video", "Video"], ["audio", "Music"]];
const GLYPHS = { image: "image", edit: "brush", video: "video", audio: "audio" };
let hasCheckpoints = false;
const HUES = { image: 232, edit: 168, video: 286, audio: 24 };

// Titles are "family: task".
export function splitTitle(row) {
  const [family, ...task] = (row.title || row.name).split(": ");
  return { family, task: task.join(": ") || row.name };
}

function groupOf(row) {
  if (row.result && row.result !== "image") return row.result;
  return /edit|image to image|inpaint|outpaint|enlarge/i.test(row.title ?? "") ? "edit" : "image";
}

// With any other checkpoint of its family, a template that lacks only its own one can run too.
function lacksOnlyCheckpoint(row) {
  return row.missing.length === 1 && row.missing[0].startsWith("checkpoints/") && hasCheckpoints;
}

function isReady(row) {
  return !row.broken && !row.too_old && (row.missing.length === 0 || lacksOnlyCheckpoint(row));
}

// A hue of the group, moved a little by the name, so that neighbours differ.
function hueOf(row) {
  const shift = [...row.name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 61, 0) - 30;
  return HUES[groupOf(row)] + shift;
}

export async function showGallery(catalog, { onFile, onHistory }) {
  hasCheckpoints = (catalog.files?.checkpoints ?? []).length > 0;
  const recent = await historyEntries();
  const thumbs = new Map();
  for (const entry of recent) if (entry.thumb && !thumbs.has(entry.template)) thumbs.set(entry.template, entry.thumb);
  const grid = h("ul", { class: "cards" });
  const cards = sorted(catalog.templates).map((row) => ({ row, element: card(row, thumbs.get(row.name)) }));
  grid.append(...cards.map(({ element }) => element));
  const none = h("p", { class: "loading", hidden: true, text: "No template matches." });
  const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search the templates" });
  const tabs = h("div", { class: "segments", role: "group", "aria-label": "Show" });
  let group = "all";
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const { row, element } of cards) {
      const text = `${row.name} ${row.title ?? ""} ${row.description}`.toLowerCase();
      const isOfGroup = group === "all" || (group === "ready" ? isReady(row) : groupOf(row) === group);
      element.hidden = !(isOfGroup && text.includes(wanted));
    }
    none.hidden = cards.some(({ element }) => !element.hidden);
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.dataset.group === group));
  };
  for (const [name, label] of TABS) {
    const choose = () => {
      group = name;
      filter();
    };
    tabs.append(h("button", { type: "button", "data-group": name, text: label, on: { click: choose } }));
  }
  search.addEventListener("input", filter);
  filter();
  return h(
    "div",
    { class: "gallery" },
    h("div", { class: "hero" }, h("h1", { text: "What do you want to make?" }), dropZone(onFile)),
    recent.length > 0 ? historyStrip(recent, onHistory) : null,
    h("div", { class: "gallery-head" }, h("h2", { text: "Templates" }), tabs, search),
    grid,
    none,
  );
}

// What can run now comes first, then by what it makes, then by name.
function sorted(rows) {
  const rank = (row) => (row.broken ? 3 : row.too_old ? 2 : isReady(row) ? 0 : 1);
  const groups = Object.keys(GLYPHS);
  const order = (row) => rank(row) * groups.length + groups.indexOf(groupOf(row));
  return [...rows].sort((a, b) => order(a) - order(b) || (a.title || a.name).localeCompare(b.title || b.name));
}

function card(row, thumb) {
  const { family, task } = splitTitle(row);
  const cover = h("span", { class: "cover", "aria-hidden": "true" });
  cover.style.setProperty("--hue", hueOf(row));
  if (thumb) cover.append(h("img", { src: thumb, alt: "" }));
  else cover.append(icon(GLYPHS[groupOf(row)], 34));
  const body = h("span", { class: "card-body" }, h("span", { class: "family", text: family }), h("span", { class: "task", text: task.charAt(0).toUpperCase() + task.slice(1) }), h("span", { class: "description", text: row.description }), state(row));
  return h("li", {}, h("a", { class: isReady(row) ? "card" : "card unready", href: `#/template/${encodeURIComponent(row.name)}`, "data-template": row.name }, cover, body));
}

function state(row) {
  if (row.broken) return h("span", { class: "badge bad", text: "cannot be read" });
  if (row.too_old) return h("span", { class: "badge", text: `needs ComfyUI ${row.requirements.comfyui}` });
  if (row.missing.length === 0) return h("span", { class: "badge good", text: "ready" });
  if (lacksOnlyCheckpoint(row)) return h("span", { class: "badge", text: "with another checkpoint", title: row.missing[0] });
  const count = row.missing.length === 1 ? "1 model is missing" : `${row.missing.length} models are missing`;
  return h("span", { class: "badge", text: count, title: row.missing.join("\n") });
}

export function dropZone(onFile) {
  const chooser = h("input", { type: "file", accept: ".json,image/png,image/webp", class: "unseen", id: "workflow-file", tabindex: "-1", "aria-hidden": "true" });
  const button = h(
    "button",
    { type: "button", class: "drop-zone" },
    icon("upload", 26),
    h("span", {}, h("strong", { text: "Drop a workflow" }), h("span", { class: "sub", text: "JSON in either format, or a picture that ComfyUI saved" })),
  );
  button.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    if (chooser.files[0]) onFile(chooser.files[0]);
    chooser.value = "";
  });
  const zone = h("div", {}, chooser, button);
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    button.classList.add("over");
  });
  zone.addEventListener("dragleave", () => button.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    button.classList.remove("over");
    if (event.dataTransfer.files[0]) onFile(event.dataTransfer.files[0]);
  });
  return zone;
}

export function historyStrip(entries, onHistory) {
  const list = h("ul", { class: "strip" });
  for (const entry of entries.slice(0, 24)) {
    const prompt = typeof entry.input.prompt === "string" ? entry.input.prompt : "";
    const label = `${entry.title}${prompt ? `: ${prompt.slice(0, 80)}` : ""}`;
    const thumb = entry.thumb ? h("img", { src: entry.thumb, alt: "", loading: "lazy" }) : icon(GLYPHS[entry.makes] ?? "file", 24);
    list.append(h("li", {}, h("button", { type: "button", class: "recent", "aria-label": `Open again: ${label}`, title: label, on: { click: () => onHistory(entry) } }, thumb)));
  }
  return h("section", { class: "history", "aria-label": "Made in this browser" }, h("h2", { text: "Made in this browser" }), list);
}
