// The fields of a form: each shows one value of a request, or the values that belong together.
//
// A field has `element`, `paths` (the keys that it shows, as errors name them), `read(input)`, which
// adds what differs from the default, `write(input)`, `showError(path, text)`, `clearError()` and
// `focus(path)`.

import { announce, h, icon, iconButton, newId, words } from "./dom.js";

const LARGEST_SEED = 2 ** 53;
const LABELS = {
  cfg: "CFG",
  fps: "Frames per second",
  vae: "VAE",
  clip_skip: "CLIP skip",
  batch_size: "Images at once",
  length: "Frames",
  loras: "LoRAs",
  controlnets: "ControlNets",
  checkpoint: "Model",
};
// What a slider shows at most: a range that is used, within the range that is allowed.
const USUAL_MAXIMUM = {
  steps: 60, cfg: 15, guidance: 10, batch_size: 8, length: 161, fps: 60, strength: 2, strength_clip: 2,
  seconds: 300, upscale_by: 4, grow_mask_by: 64, left: 512, top: 512, right: 512, bottom: 512, bpm: 240,
};
const FEWEST_FOR_SLIDER = 2;
const MOST_FOR_SLIDER = 1024;
const LONG_TEXTS = ["prompt", "negative_prompt", "lyrics", "text", "instruction"];
const RATIOS = [[1, 1], [4, 3], [3, 2], [16, 9], [3, 4], [2, 3], [9, 16]];
const DEFAULT_AREA = 1024 * 1024;

export function labelOf(name) {
  return LABELS[name] ?? words(name);
}

export function setPath(input, path, value) {
  const [first, ...rest] = path.split(".");
  if (rest.length === 0) input[first] = value;
  else setPath((input[first] ??= {}), rest.join("."), value);
}

export function getPath(input, path) {
  return path.split(".").reduce((value, key) => value?.[key], input);
}

// A label, a control, its help and the line for its error, tied together for screen readers.
export class Frame {
  constructor(label, control, { help = "", required = false, group = false } = {}) {
    this.control = control;
    this.errorId = newId("error");
    const labelId = newId("label");
    control.id ||= newId("field");
    const title = h(group ? "div" : "label", { class: "label", id: labelId, for: group ? null : control.id, text: label });
    if (required) title.append(h("span", { class: "required", text: "required" }));
    this.error = h("p", { class: "error", id: this.errorId, hidden: true });
    this.element = h("div", { class: "field" }, title, control);
    if (group) {
      this.element.setAttribute("role", "group");
      this.element.setAttribute("aria-labelledby", labelId);
    }
    if (help) {
      const helpId = newId("help");
      this.element.append(h("p", { class: "help", id: helpId, text: help }));
      control.setAttribute("aria-describedby", helpId);
    }
    this.element.append(this.error);
    this.title = title;
    this.described = control.getAttribute("aria-describedby");
  }

  showError(text, target = this.control) {
    this.error.replaceChildren(icon("alert", 16), text);
    this.error.hidden = false;
    this.element.classList.add("invalid");
    target.setAttribute("aria-invalid", "true");
    target.setAttribute("aria-errormessage", this.errorId);
    target.setAttribute("aria-describedby", [this.described, this.errorId].filter(Boolean).join(" "));
  }

  clearError() {
    this.error.hidden = true;
    this.element.classList.remove("invalid");
    for (const target of [this.control, ...this.element.querySelectorAll("[aria-invalid]")]) {
      target.removeAttribute("aria-invalid");
      target.removeAttribute("aria-errormessage");
    }
    if (this.described) this.control.setAttribute("aria-describedby", this.described);
    else this.control.removeAttribute("aria-describedby");
  }
}

// What most fields share: one path, one control, a default that is not sent.
class Field {
  constructor(path, schema, required) {
    this.path = path;
    this.paths = [path];
    this.name = path.split(".").pop();
    this.schema = schema;
    this.default = schema.default ?? null;
    this.required = required;
    this.always = path === "prompt";
  }

  frame(control, options = {}) {
    this.shown = new Frame(labelOf(this.name), control, { help: this.help(), required: this.required, ...options });
    this.element = this.shown.element;
    this.element.dataset.key = this.path;
    control.addEventListener("input", () => this.clearError());
  }

  help() {
    return this.path.startsWith("parameters.") ? this.schema.description ?? "" : "";
  }

  read(input) {
    const value = this.value();
    if (value === undefined || value === "") return;
    if (this.always || value !== this.default) setPath(input, this.path, value);
  }

  write(input) {
    this.set(getPath(input, this.path) ?? this.default);
  }

  showError(_path, text) {
    this.shown.showError(text);
  }

  clearError() {
    this.shown.clearError();
  }

  focus() {
    this.shown.control.focus();
  }
}

export class TextField extends Field {
  constructor(path, schema, required) {
    super(path, schema, required);
    const isLong = LONG_TEXTS.includes(this.name) || String(this.default ?? "").length > 60;
    this.input = isLong ? h("textarea", { rows: this.name === "prompt" ? 4 : 2 }) : h("input", { type: "text" });
    this.input.setAttribute("spellcheck", isLong ? "true" : "false");
    this.frame(this.input);
    this.set(this.default);
  }

  // An emptied text is sent as such: a template's own text would count otherwise.
  read(input) {
    const value = this.input.value;
    if (value !== (this.default ?? "") || (this.always && value)) setPath(input, this.path, value);
  }

  set(value) {
    this.input.value = value ?? "";
  }
}

export class NumberField extends Field {
  constructor(path, schema, required) {
    super(path, schema, required);
    const isWhole = schema.type === "integer";
    const { minimum, maximum, multipleOf } = schema;
    this.input = h("input", { type: "number", inputmode: isWhole ? "numeric" : "decimal", step: multipleOf ?? (isWhole ? 1 : "any") });
    if (minimum !== undefined) this.input.min = minimum;
    if (maximum !== undefined) this.input.max = maximum;
    const row = h("div", { class: "number" });
    this.slider = this.makeSlider(minimum, maximum, isWhole);
    if (this.slider !== null) row.append(this.slider);
    row.append(this.input);
    this.shown = new Frame(labelOf(this.name), this.input, { help: this.help(), required: this.required });
    this.shown.element.insertBefore(row, this.shown.title.nextSibling);
    row.append(this.input);
    this.element = this.shown.element;
    this.element.dataset.key = path;
    this.input.addEventListener("input", () => {
      this.clearError();
      this.showOnSlider();
    });
    this.set(this.default);
  }

  makeSlider(minimum, maximum, isWhole) {
    const start = Number(this.default ?? 0);
    const usual = USUAL_MAXIMUM[this.name] ?? maximum;
    if (minimum === undefined || usual === undefined || usual - minimum < (isWhole ? FEWEST_FOR_SLIDER : 0)) return null;
    if (usual - minimum > MOST_FOR_SLIDER) return null;
    const high = Math.min(maximum ?? usual, Math.max(usual, start * 2));
    const step = this.schema.multipleOf ?? (isWhole ? 1 : high - minimum > 20 ? 0.5 : 0.05);
    const slider = h("input", { type: "range", min: minimum, max: high, step, "aria-label": `${labelOf(this.name)}, slider` });
    slider.addEventListener("input", () => {
      this.clearError();
      this.input.value = slider.value;
      this.showOnSlider();
    });
    return slider;
  }

  showOnSlider() {
    if (this.slider === null) return;
    this.slider.value = this.input.value === "" ? this.slider.min : this.input.value;
    const { min, max, value } = this.slider;
    this.slider.style.setProperty("--filled", `${((value - min) / (max - min)) * 100}%`);
  }

  // What is no number stays as it is, so that the worker's error names it.
  value() {
    if (this.input.validity.badInput) return "not a number";
    return this.input.value === "" ? undefined : Number(this.input.value);
  }

  set(value) {
    this.input.value = value ?? "";
    this.showOnSlider();
  }
}

export class SeedField extends Field {
  constructor(path, schema, required) {
    super(path, schema, required);
    this.input = h("input", { type: "number", min: -1, max: LARGEST_SEED - 1, step: 1, placeholder: "random each time", inputmode: "numeric" });
    this.shown = new Frame("Seed", this.input, {});
    const roll = () => {
      this.input.value = randomSeed();
      announce(`Seed ${this.input.value}`);
    };
    const clear = () => {
      this.input.value = "";
      announce("Random seed");
    };
    const row = h("div", { class: "with-buttons" });
    this.shown.element.insertBefore(row, this.shown.title.nextSibling);
    row.append(this.input, iconButton("dice", "Throw a seed", roll), iconButton("cross", "Random seed each time", clear));
    this.element = this.shown.element;
    this.element.dataset.key = path;
    this.input.addEventListener("input", () => this.clearError());
    this.set(this.default);
  }

  read(input) {
    if (this.input.value === "") {
      if (this.default !== null && this.default !== -1) setPath(input, this.path, -1);
    } else if (Number(this.input.value) !== this.default) {
      setPath(input, this.path, Number(this.input.value));
    }
  }

  set(value) {
    this.input.value = value === null || value === -1 ? "" : value;
  }
}

function randomSeed() {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high & 0x1fffff) * 2 ** 32 + low;
}

export class SelectField extends Field {
  constructor(path, schema, required, choices) {
    super(path, schema, required);
    this.choices = choices;
    this.input = h("select");
    this.frame(this.input);
    this.fill();
    this.set(this.default);
  }

  fill() {
    const known = this.choices.map(String);
    const options = [];
    if (this.default === null) options.push(h("option", { value: "", text: "as the workflow has it" }));
    else if (!known.includes(String(this.default))) {
      // In a template, the worker takes another checkpoint for one that is not installed, and warns.
      const text = this.path === "checkpoint" && !this.schema.isOwn ? "the worker's choice" : `${this.default} (not installed)`;
      options.push(h("option", { value: this.default, text }));
    }
    options.push(...this.choices.map((choice) => h("option", { value: choice, text: choice })));
    this.input.replaceChildren(...options);
  }

  value() {
    if (this.input.value === "") return undefined;
    const index = this.choices.map(String).indexOf(this.input.value);
    return index < 0 ? this.input.value : this.choices[index];
  }

  set(value) {
    const text = value === null || value === undefined ? "" : String(value);
    const isKnown = [...this.input.options].some((option) => option.value === text);
    if (!isKnown && text) this.input.append(h("option", { value: text, text }));
    this.input.value = text;
  }
}

export class SwitchField extends Field {
  constructor(path, schema, required) {
    super(path, schema, required);
    this.input = h("input", { type: "checkbox", class: "switch", role: "switch" });
    this.frame(this.input);
    this.element.classList.add("inline");
    this.set(this.default);
  }

  value() {
    return this.input.checked;
  }

  read(input) {
    if (this.input.checked !== Boolean(this.default)) setPath(input, this.path, this.input.checked);
  }

  set(value) {
    this.input.checked = Boolean(value);
  }
}

export class JsonField extends Field {
  constructor(path, schema, required) {
    super(path, schema, required);
    this.default = null;
    this.input = h("textarea", { rows: 3, class: "mono", spellcheck: "false", placeholder: '{"12.scale_by": 2}' });
    this.frame(this.input, { help: "JSON: any input of any node, by node id or title" });
  }

  // A text that is not JSON is sent as it is: the worker says what is wrong with it.
  read(input) {
    const text = this.input.value.trim();
    if (!text) return;
    try {
      const value = JSON.parse(text);
      const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
      // Fields of files may have written overrides already.
      setPath(input, this.path, isObject ? { ...getPath(input, this.path), ...value } : value);
    } catch {
      setPath(input, this.path, text);
    }
  }

  set(value) {
    const isFile = (entry) => typeof entry === "string" && entry.startsWith("data:");
    const entries = Object.entries(value ?? {}).filter(([, entry]) => !isFile(entry));
    this.input.value = entries.length === 0 ? "" : JSON.stringify(Object.fromEntries(entries), null, 2);
  }
}

// Width and height, with buttons for the usual shapes of the model's own area.
export class SizeField {
  constructor(width, height) {
    this.schemas = { width, height };
    this.paths = ["width", "height"];
    this.keepsPicture = width.default === 0;
    this.inputs = {};
    const numbers = h("div", { class: "size-numbers" });
    for (const name of this.paths) {
      const { minimum, maximum, multipleOf } = this.schemas[name];
      this.inputs[name] = h("input", { type: "number", min: minimum, max: maximum, step: multipleOf ?? 1, id: newId(name), inputmode: "numeric" });
      this.inputs[name].addEventListener("input", () => {
        this.clearError();
        this.mark();
      });
    }
    numbers.append(
      h("label", { for: this.inputs.width.id, class: "inner", text: "Width" }), this.inputs.width,
      iconButton("swap", "Swap width and height", () => this.use(this.inputs.height.value, this.inputs.width.value)),
      h("label", { for: this.inputs.height.id, class: "inner", text: "Height" }), this.inputs.height,
    );
    this.ratios = h("div", { class: "ratios" });
    if (this.keepsPicture) this.ratios.append(this.ratioButton("As the picture", 0, 0));
    const body = h("div", { class: "size" }, this.ratios, numbers);
    this.shown = new Frame("Size", body, { group: true });
    this.element = this.shown.element;
    this.element.dataset.key = "size";
    this.setArea((width.default || 0) * (height.default || 0) || DEFAULT_AREA);
    this.write({});
  }

  // The shapes of another family of models.
  setArea(area) {
    const first = this.keepsPicture ? [this.ratios.firstChild] : [];
    const step = this.schemas.width.multipleOf ?? 8;
    const grid = area >= 512 * 512 ? lowestMultiple(64, step) : step;
    const buttons = RATIOS.map(([across, down]) => {
      const ratio = Math.sqrt(across / down);
      const rounded = (length) => Math.max(grid, Math.round(length / grid) * grid);
      const side = Math.sqrt(area);
      return this.ratioButton(`${across}:${down}`, rounded(side * ratio), rounded(side / ratio), [across, down]);
    });
    this.ratios.replaceChildren(...first, ...buttons);
    this.mark();
  }

  ratioButton(text, width, height, shape) {
    const size = width ? `${width} x ${height}` : "the picture's own size";
    const button = h("button", { type: "button", class: "ratio", title: size, "aria-pressed": "false" });
    if (shape) {
      const outline = h("span", { class: "shape", "aria-hidden": "true" });
      const scale = 16 / Math.max(...shape);
      outline.style.width = `${shape[0] * scale}px`;
      outline.style.height = `${shape[1] * scale}px`;
      button.append(outline);
    }
    button.append(h("span", { text }), h("span", { class: "unseen", text: `, ${size}` }));
    button.dataset.size = `${width}x${height}`;
    button.addEventListener("click", () => this.use(width, height));
    return button;
  }

  use(width, height) {
    this.inputs.width.value = width;
    this.inputs.height.value = height;
    this.clearError();
    this.mark();
  }

  mark() {
    const size = `${this.inputs.width.value}x${this.inputs.height.value}`;
    for (const button of this.ratios.children) button.setAttribute("aria-pressed", String(button.dataset.size === size));
  }

  read(input) {
    for (const name of this.paths) {
      const text = this.inputs[name].value;
      if (text !== "" && Number(text) !== this.schemas[name].default) input[name] = Number(text);
    }
  }

  write(input) {
    for (const name of this.paths) this.inputs[name].value = input[name] ?? this.schemas[name].default ?? "";
    this.mark();
  }

  showError(path, text) {
    this.shown.showError(text, this.inputs[path] ?? this.inputs.width);
  }

  clearError() {
    this.shown.clearError();
  }

  focus(path) {
    (this.inputs[path] ?? this.inputs.width).focus();
  }
}

function lowestMultiple(a, b) {
  let multiple = Math.max(a, b);
  while (multiple % a || multiple % b) multiple += Math.max(a, b);
  return multiple;
}

// Format, quality and the stored workflow of the result.
export class OutputField {
  constructor() {
    this.paths = ["output"];
    this.format = h("select", { id: newId("format") }, ["png", "jpeg", "webp"].map((name) => h("option", { value: name, text: name.toUpperCase() })));
    this.quality = h("input", { type: "number", min: 1, max: 100, value: 90, id: newId("quality"), inputmode: "numeric" });
    this.metadata = h("input", { type: "checkbox", class: "switch", role: "switch", id: newId("metadata") });
    const row = h(
      "div",
      { class: "output-row" },
      h("label", { class: "inner", for: this.format.id, text: "Format" }), this.format,
      h("label", { class: "inner", for: this.quality.id, text: "Quality" }), this.quality,
      h("label", { class: "inner wide-label", for: this.metadata.id, text: "Store the workflow in the file" }), this.metadata,
    );
    this.shown = new Frame("Result", row, { group: true });
    this.element = this.shown.element;
    this.element.dataset.key = "output";
    this.format.addEventListener("input", () => this.showQuality());
    this.write({});
  }

  showQuality() {
    this.quality.disabled = this.format.value === "png";
  }

  read(input) {
    const output = {};
    if (this.format.value !== "png") output.format = this.format.value;
    if (this.format.value !== "png" && this.quality.value !== "90") output.quality = Number(this.quality.value);
    if (!this.metadata.checked) output.metadata = false;
    if (Object.keys(output).length > 0) input.output = { ...output, ...input.output };
  }

  write({ output = {} }) {
    this.format.value = output.format ?? "png";
    this.quality.value = output.quality ?? 90;
    this.metadata.checked = output.metadata ?? true;
    this.showQuality();
  }

  showError(path, text) {
    const target = { "output.quality": this.quality, "output.format": this.format }[path] ?? this.format;
    this.shown.showError(text, target);
  }

  clearError() {
    this.shown.clearError();
  }

  focus(path) {
    (path === "output.quality" ? this.quality : this.format).focus();
  }
}
