// LoRAs and ControlNets: rows that can be added and removed.

import { announce, h, icon, iconButton, newId } from "./dom.js";
import { Frame, labelOf } from "./fields.js";
import { MediaField } from "./media_field.js";

const TYPES = ["canny", "depth", "openpose", "lineart", "softedge", "scribble", "tile", "normal", "seg"];

// A small number with a label of its own.
function labelledNumber(label, value, range) {
  const input = h("input", { type: "number", id: newId("number"), inputmode: "decimal", value, ...range });
  return { input, element: h("div", { class: "small-number" }, h("label", { class: "inner", for: input.id, text: label }), input) };
}

// A list of installed files, in which another name or a URL may be written too.
function filePicker(files, label, placeholder) {
  const list = h("datalist", { id: newId("files") }, files.map((file) => h("option", { value: file })));
  const input = h("input", { type: "text", list: list.id, placeholder, "aria-label": label, spellcheck: "false", autocomplete: "off" });
  return { input, element: h("div", { class: "picker" }, input, list) };
}

class Rows {
  constructor(key, addText) {
    this.key = key;
    this.paths = [key];
    this.rows = [];
    this.list = h("div", { class: "rows" });
    this.add = h("button", { type: "button", class: "quiet add", on: { click: () => this.addRow({}).focus() } }, icon("plus"), addText);
    this.shown = new Frame(labelOf(key), h("div", {}, this.list, this.add), { group: true });
    this.element = this.shown.element;
    this.element.dataset.key = key;
  }

  addRow(values) {
    const row = this.makeRow(values);
    const remove = iconButton("cross", `Remove this ${this.noun}`, () => {
      this.rows.splice(this.rows.indexOf(row), 1);
      row.element.remove();
      announce(`${this.noun} removed`);
      this.add.focus();
    });
    row.element.querySelector(".row-head").append(remove);
    this.rows.push(row);
    this.list.append(row.element);
    return row;
  }

  read(input) {
    const values = this.rows.map((row) => row.read()).filter((value) => value !== null);
    if (values.length > 0) input[this.key] = values;
  }

  write(input) {
    this.rows = [];
    this.list.replaceChildren();
    for (const values of input[this.key] ?? []) this.addRow(values);
  }

  // `path`: such as loras.1.strength. A row that the error names by its file is found by its text.
  showError(path, text, detail = {}) {
    const index = Number(path.split(".")[1]);
    const named = this.rows.find((row) => detail.given && row.names(detail.given));
    const row = this.sentRow(index) ?? named ?? this.rows[0];
    this.failed = row;
    this.shown.showError(text, row ? row.control(path.split(".")[2]) : this.add);
    if (row) row.element.classList.add("invalid");
  }

  // Rows without a name are not sent, so they do not count in the path of an error.
  sentRow(index) {
    return this.rows.filter((row) => row.read() !== null)[index];
  }

  names(given) {
    return this.rows.some((row) => row.names(given));
  }

  clearError() {
    this.shown.clearError();
    for (const row of this.rows) row.element.classList.remove("invalid");
  }

  focus(path) {
    if (this.failed) this.failed.control(path.split(".")[2]).focus();
    else this.add.focus();
  }
}

export class LoraField extends Rows {
  constructor(files, hasTargets) {
    super("loras", "Add a LoRA");
    this.noun = "LoRA";
    this.files = files;
    this.hasTargets = hasTargets;
  }

  makeRow(values) {
    const { input: name, element: picker } = filePicker(this.files, "LoRA file", this.files.length > 0 ? "Choose a LoRA" : "No LoRA is installed: a name or URL");
    name.value = values.name ?? "";
    const strength = labelledNumber("Strength", values.strength ?? 1, { step: 0.05, min: -4, max: 4 });
    const slider = h("input", { type: "range", min: -1, max: 2, step: 0.05, value: strength.input.value, "aria-label": "Strength, slider" });
    const show = () => slider.style.setProperty("--filled", `${((slider.value - slider.min) / (slider.max - slider.min)) * 100}%`);
    slider.addEventListener("input", () => { strength.input.value = slider.value; show(); });
    strength.input.addEventListener("input", () => { slider.value = strength.input.value; show(); });
    show();
    const target = h("input", { type: "text", placeholder: "Model: high, low, base, refiner or a node", "aria-label": "Target model", value: values.target ?? "", hidden: !this.hasTargets && !values.target });
    const element = h("div", { class: "row" }, h("div", { class: "row-head" }, picker), h("div", { class: "row-body" }, slider, strength.element), target);
    element.addEventListener("input", () => this.clearError());
    return {
      element,
      focus: () => name.focus(),
      control: (key) => ({ strength: strength.input, target })[key] ?? name,
      names: (given) => name.value === given,
      read: () => {
        if (!name.value.trim()) return null;
        const row = { name: name.value.trim(), strength: Number(strength.input.value) };
        if (values.strength_clip !== undefined) row.strength_clip = values.strength_clip;
        if (target.value.trim()) row.target = target.value.trim();
        return row;
      },
    };
  }
}

export class ControlNetField extends Rows {
  constructor(files) {
    super("controlnets", "Add a ControlNet");
    this.noun = "ControlNet";
    this.files = files;
  }

  makeRow(values) {
    const type = h("select", { "aria-label": "Type of ControlNet" }, h("option", { value: "", text: "any type" }), TYPES.map((name) => h("option", { value: name, text: name })));
    if (values.type && !TYPES.includes(values.type)) type.append(h("option", { value: values.type, text: values.type }));
    type.value = values.type ?? (values.model ? "" : "canny");
    const { input: model, element: picker } = filePicker(this.files, "ControlNet file", "by its type, or a file");
    model.value = values.model ?? "";
    const image = new MediaField("image", "image", { label: "Control picture" });
    image.set(values.image ?? "");
    const strength = labelledNumber("Strength", values.strength ?? 1, { step: 0.05, min: 0, max: 10 });
    const start = labelledNumber("Start", values.start ?? 0, { step: 0.05, min: 0, max: 1 });
    const end = labelledNumber("End", values.end ?? 1, { step: 0.05, min: 0, max: 1 });
    const make = h("input", { type: "checkbox", class: "switch", role: "switch", id: newId("make") });
    make.checked = values.preprocess ?? type.value === "canny";
    type.addEventListener("input", () => { make.checked = type.value === "canny"; });
    const element = h(
      "div",
      { class: "row" },
      h("div", { class: "row-head" }, type, picker),
      image.element,
      h("div", { class: "row-body" }, strength.element, start.element, end.element),
      h("div", { class: "make" }, h("label", { class: "inner", for: make.id, text: "Make the control map from the picture" }), make),
    );
    element.addEventListener("input", () => this.clearError());
    const controls = { type, strength: strength.input, start: start.input, end: end.input, preprocess: make };
    return {
      element,
      focus: () => type.focus(),
      control: (key) => (key === "image" ? image.target() : controls[key] ?? model),
      names: (given) => model.value === given,
      read: () => {
        const row = { image: image.value };
        if (!image.value) delete row.image;
        if (type.value) row.type = type.value;
        if (model.value.trim()) row.model = model.value.trim();
        for (const [key, { input }, usual] of [["strength", strength, 1], ["start", start, 0], ["end", end, 1]]) {
          if (Number(input.value) !== usual) row[key] = Number(input.value);
        }
        if (make.checked !== (type.value === "canny")) row.preprocess = make.checked;
        return row;
      },
    };
  }
}
