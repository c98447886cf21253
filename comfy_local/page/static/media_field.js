// A picture, sound or video of a request: dropped, chosen, pasted, or by its URL.

import { announce, formatBytes, h, icon, iconButton } from "./dom.js";
import { Frame, getPath, labelOf, setPath } from "./fields.js";
import { openMaskPainter, paintButton } from "./mask_painter.js";

// RunPod takes requests of 10 MB, and base64 is a third longer than the file.
const LARGEST_FILE = 7_300_000;
const ACCEPTED = { image: "image/*", video: "video/*", audio: "audio/*" };
const NOUNS = { image: "picture", video: "video", audio: "sound file" };

export function readAsDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

export class MediaField {
  // `media`: image, video or audio. `pictureField`: for a mask, the field of its picture.
  constructor(path, media, { label, help = "", required = false, pictureField = null } = {}) {
    this.path = path;
    this.paths = [path];
    this.media = media;
    this.value = "";
    this.listeners = [];
    const noun = NOUNS[media];
    this.chooser = h("input", { type: "file", accept: ACCEPTED[media], class: "unseen", tabindex: "-1", "aria-hidden": "true" });
    this.chooser.addEventListener("change", () => this.take(this.chooser.files[0]));
    this.drop = h(
      "button",
      { type: "button", class: "drop" },
      icon("upload", 22),
      h("span", { text: `Drop a ${noun}, or choose one` }),
    );
    this.drop.addEventListener("click", () => this.chooser.click());
    this.url = h("input", { type: "url", placeholder: "or its URL: https://...", "aria-label": `URL of the ${noun}` });
    this.url.addEventListener("change", () => this.set(this.url.value.trim()));
    this.preview = h("div", { class: "preview", hidden: true });
    const body = h("div", { class: "media" }, this.chooser, this.drop, this.preview, this.url);
    const name = path.split(".").pop();
    this.shown = new Frame(label ?? labelOf(name), body, { group: true, help, required });
    this.element = this.shown.element;
    this.element.dataset.key = path;
    if (pictureField !== null) this.addPainter(pictureField, body);
    this.listenForDrops(body);
  }

  addPainter(pictureField, body) {
    const paint = paintButton(() => openMaskPainter(pictureField.value, (mask) => this.set(mask)));
    const update = () => {
      paint.disabled = !pictureField.value.startsWith("data:");
      // A mask belongs to the picture on which it was painted.
      if (pictureField.value !== this.paintedOn && this.value) this.set("");
      this.paintedOn = pictureField.value;
    };
    pictureField.listeners.push(update);
    this.paint = paint;
    body.prepend(paint);
    update();
  }

  listenForDrops(body) {
    body.addEventListener("dragover", (event) => {
      event.preventDefault();
      body.classList.add("over");
    });
    body.addEventListener("dragleave", () => body.classList.remove("over"));
    body.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      body.classList.remove("over");
      this.take(event.dataTransfer.files[0]);
    });
    body.addEventListener("paste", (event) => {
      const [file] = event.clipboardData.files;
      if (file) this.take(file);
    });
  }

  async take(file) {
    if (!file) return;
    this.clearError();
    if (!file.type.startsWith(`${this.media}/`)) {
      this.showError(this.path, `${file.name} is not a ${NOUNS[this.media]}.`);
      return;
    }
    if (file.size > LARGEST_FILE) {
      this.showError(this.path, `${file.name} has ${formatBytes(file.size)}, but a request takes ${formatBytes(LARGEST_FILE)}. Give a URL instead.`);
      return;
    }
    this.set(await readAsDataUrl(file), file.name);
    announce(`${file.name} is set`);
  }

  set(value, name = "") {
    this.value = value;
    this.clearError();
    const isUrl = /^https?:/.test(value);
    this.url.value = isUrl ? value : "";
    this.preview.replaceChildren();
    this.preview.hidden = !value;
    this.drop.hidden = Boolean(value);
    this.url.hidden = Boolean(value) && !isUrl;
    if (value) {
      this.preview.append(this.shownMedia(value, name), iconButton("cross", `Remove ${this.shown.title.textContent}`, () => {
        this.set("");
        this.drop.focus();
      }, "icon-button remove"));
    }
    for (const listener of this.listeners) listener();
  }

  shownMedia(value, name) {
    const source = /^(data|https?):/.test(value) ? value : `data:;base64,${value}`;
    if (this.media === "image") return h("img", { src: source, alt: name || "The chosen picture" });
    return h(this.media, { src: source, controls: true, preload: "metadata" });
  }

  read(input) {
    if (this.value) setPath(input, this.path, this.value);
  }

  write(input) {
    this.set(getPath(input, this.path) ?? "");
    this.chooser.value = "";
  }

  // The control that can have the focus now.
  target() {
    const controls = [this.drop, this.url, this.preview.querySelector("button")];
    return controls.find((control) => control && !control.closest("[hidden]")) ?? this.drop;
  }

  showError(_path, text) {
    this.shown.showError(text, this.target());
  }

  clearError() {
    this.shown.clearError();
  }

  focus() {
    this.target().focus();
  }
}
