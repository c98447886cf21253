// The second view: the form of a template or workflow beside what it makes.

import { CallError } from "./api.js";
import { openCopyDialog } from "./copy.js";
import { announce, h, icon } from "./dom.js";
import { nodeList } from "./dropped_workflow.js";
import { Form } from "./form.js";
import { historyStrip, splitTitle } from "./gallery.js";
import { addToHistory, clearHistory, historyEntries, thumbnailOf } from "./history.js";
import { JobFailure, runToEnd } from "./job.js";
import { Progress } from "./progress.js";
import { showResult, urlOf } from "./result.js";

function missingModels(name, missing) {
  const command = `python3 -m comfy_setup models --only ${name}`;
  const text = missing.length === 1 ? "A model of this template is not installed here." : `${missing.length} models of this template are not installed here.`;
  return h(
    "details",
    { class: "notice" },
    h("summary", { text }),
    h("ul", {}, missing.map((file) => h("li", {}, h("code", { text: file })))),
    h("p", {}, "To install: ", h("code", { text: command })),
    h("p", { text: "Another model of the same family may do: choose it below." }),
  );
}

export class Workbench {
  // `tools`: onHistory(entry), onUnauthorized(), onEnd().
  constructor(entry, catalog, tools) {
    this.entry = entry;
    this.tools = tools;
    this.running = null;
    this.form = new Form(entry, catalog);
    this.run = h("button", { type: "submit", class: "primary run" }, icon("play"), h("span", { text: "Run" }));
    this.copy = h("button", { type: "button", class: "quiet", on: { click: () => openCopyDialog(this.form.read(), entry.result) } }, icon("copy", 16), "Copy as code");
    this.stage = h("div", { class: "stage" }, this.emptyStage());
    this.past = h("div", { class: "past" });
    const bar = h("div", { class: "run-bar" }, this.run, this.copy);
    this.formElement = h("form", { class: "form", novalidate: true, "aria-label": "Request" }, this.form.element, entry.isCustom ? nodeList(entry) : null, bar);
    this.formElement.addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    this.formElement.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.start();
    });
    this.element = h("div", { class: "workbench" }, this.head(), this.formElement, h("div", { class: "side" }, this.stage, this.past));
    this.showPast();
  }

  head() {
    const { family, task } = splitTitle(this.entry);
    const title = this.entry.isCustom ? this.entry.title : task.charAt(0).toUpperCase() + task.slice(1);
    return h(
      "div",
      { class: "workbench-head" },
      h("a", { class: "back", href: "#/" }, icon("back", 16), "All templates"),
      h("p", { class: "family", text: this.entry.isCustom ? "Your workflow" : family }),
      h("h1", { tabindex: "-1", text: title }),
      h("p", { class: "sub", text: this.entry.description }),
      this.notice(),
    );
  }

  notice() {
    const { missing = [], too_old: isTooOld, requirements, findings = [], name } = this.entry;
    if (isTooOld) return h("p", { class: "notice", text: `This template needs ComfyUI ${requirements.comfyui} or newer.` });
    if (missing.length > 0) return missingModels(name, missing);
    const problems = findings.filter((finding) => finding.type !== "missing_input_file").map((finding) => finding.problem ?? finding.message).filter(Boolean);
    if (problems.length === 0) return null;
    return h("div", { class: "notice" }, h("p", { text: "What would stop it:" }), h("ul", {}, problems.slice(0, 8).map((text) => h("li", { text }))));
  }

  emptyStage() {
    return h("div", { class: "empty" }, icon("image", 40), h("p", { text: "The result appears here." }), h("p", { class: "sub", text: "Run, or press Control and Enter." }));
  }

  // `input`: a request, which its form shows; `result`: what it made, if that is kept.
  write({ input, result = null }) {
    this.form.write(input);
    if (result !== null) this.showResult(result, input);
  }

  async start() {
    if (this.running !== null) return;
    this.form.clearErrors();
    const input = this.form.read();
    const canceller = new AbortController();
    const progress = new Progress(() => canceller.abort());
    this.running = canceller;
    this.run.disabled = true;
    this.stage.replaceChildren(progress.element);
    announce("The job is sent");
    if (matchMedia("(max-width: 60rem)").matches) this.stage.scrollIntoView({ block: "start" });
    try {
      const sent = { ...input, output: { preview: true, ...input.output } };
      let id = "";
      const result = await runToEnd(sent, { onUpdate: (job) => progress.update(job), onStart: (started) => { id = started; }, signal: canceller.signal });
      Object.assign(this.entry.nodes ??= {}, { ...progress.titles, ...this.entry.nodes });
      this.showResult(result, input);
      announce("The result is there");
      this.keep(id, result, input);
    } catch (error) {
      this.showFailure(error);
    } finally {
      progress.end();
      this.running = null;
      this.run.disabled = false;
      this.tools.onEnd();
    }
  }

  showResult(result, input) {
    const image = this.form.fieldOf("image");
    const actions = {
      useSeed: (seed) => {
        this.form.fieldOf("seed")?.set(seed);
        announce("The seed is kept");
      },
      useImage: image && ((dataUrl) => {
        image.set(dataUrl);
        image.focus();
        announce("The picture is set");
      }),
    };
    this.stage.replaceChildren(showResult(result, input, this.entry, actions));
  }

  showFailure(error) {
    this.stage.replaceChildren(this.emptyStage());
    if (error instanceof JobFailure) {
      if (error.code === "JOB_CANCELLED") {
        this.stage.replaceChildren(h("div", { class: "empty" }, icon("stop", 40), h("p", { text: "The job was cancelled." })));
        announce("The job was cancelled");
        this.run.disabled = false;
        this.run.focus();
        return;
      }
      this.form.showFailure(error);
      return;
    }
    if (!(error instanceof CallError)) throw error;
    this.form.showBanner(error.status ? `HTTP ${error.status}` : "No answer", error.message);
    this.form.banner.focus();
    if (error.status === 401) this.tools.onUnauthorized();
  }

  async keep(id, result, input) {
    const file = [...(result.images ?? []), ...(result.videos ?? [])][0];
    const thumb = file ? await thumbnailOf(urlOf(file), file.mime_type) : null;
    const kept = { ...input, seed: result.seed ?? input.seed };
    const title = this.entry.isCustom ? this.entry.name : this.entry.title || this.entry.name;
    await addToHistory({ id, created: Date.now(), template: this.entry.isCustom ? null : this.entry.name, title, input: kept, makes: this.entry.result, result, thumb });
    this.showPast();
  }

  async showPast() {
    const entries = await historyEntries();
    if (entries.length === 0) {
      this.past.replaceChildren();
      return;
    }
    const clear = async () => {
      await clearHistory();
      announce("The history is empty");
      this.showPast();
    };
    const strip = historyStrip(entries, this.tools.onHistory);
    strip.append(h("button", { type: "button", class: "quiet clear", text: "Clear this list", on: { click: clear } }));
    this.past.replaceChildren(strip);
  }
}
