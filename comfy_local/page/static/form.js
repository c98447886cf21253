// Makes a form from a JSON Schema, reads it into a request, and puts errors onto its fields.

import { h, words } from "./dom.js";
import { JsonField, NumberField, OutputField, SeedField, SelectField, SizeField, SwitchField, TextField, labelOf } from "./fields.js";
import { MediaField } from "./media_field.js";
import { ControlNetField, LoraField } from "./row_fields.js";

const MAIN = ["prompt", "negative_prompt", "image", "mask", "size", "length", "seed", "steps", "cfg", "guidance", "checkpoint"];
const ROWS = ["loras", "controlnets"];
const ADVANCED = ["sampler", "scheduler", "denoise", "batch_size", "fps", "vae", "clip_skip", "output", "overrides"];
// Keys of a request that the form sets by other means.
const NOT_SHOWN = ["workflow", "images", "parameters", "response", "validate_only", "width", "height"];
const SAME_INPUT = ["cfg", "guidance"];
const NEWER_AREA = 1024 * 1024;

// A schema that also takes null, without the null: an empty field is not sent.
function withoutNull(schema) {
  const { anyOf, ...rest } = schema;
  const options = (anyOf ?? []).filter((option) => option.type !== "null");
  if (options.length === 0) return schema;
  return { ...rest, ...(options.find((option) => option.type) ?? options[0]) };
}

// Says `controlnets.0.image` as the label beside the field says it.
function inWords(text, path) {
  return path.includes(".") ? text.replaceAll(path, labelOf(path.split(".").pop())) : text;
}

function choicesOf(name, schema, catalog) {
  const listed = schema.enum ?? { sampler: catalog.samplers, scheduler: catalog.schedulers, vae: catalog.files?.vae }[name];
  return listed && listed.length > 0 ? listed : null;
}

export class Form {
  // `entry`: a template of the catalog, or what a workflow was found to have. `catalog`: the list.
  constructor(entry, catalog) {
    this.entry = entry;
    this.catalog = catalog;
    this.required = entry.schema.required ?? [];
    this.media = entry.media ?? {};
    this.fields = [];
    this.main = h("div", { class: "fields" });
    this.further = h("div", { class: "fields" });
    this.banner = h("div", { class: "banner", role: "alert", tabindex: "-1", hidden: true });
    this.summary = h("summary", { text: "Advanced" });
    this.advanced = h("details", { class: "advanced" }, this.summary, this.further);
    this.element = h("div", { class: "form-body" }, this.banner, this.main, this.advanced);
    this.build(entry.schema.properties);
    this.advanced.hidden = this.further.children.length === 0;
  }

  build(properties) {
    const shown = Object.keys(properties).filter((name) => !NOT_SHOWN.includes(name) && !this.isSecondWord(name));
    if (properties.width && properties.height) shown.push("size");
    const pick = (names) => names.filter((name) => shown.includes(name));
    for (const name of pick(MAIN)) this.add(this.make(name, properties), this.main);
    for (const [name, schema] of Object.entries(properties.parameters?.properties ?? {})) {
      // The schema takes the keys of a request there too.
      if (!(name in properties)) this.add(this.makeOne(`parameters.${name}`, withoutNull(schema)), this.main);
    }
    for (const file of this.entry.files ?? []) this.add(this.makeNamed(file), this.main);
    for (const name of pick(ROWS)) this.add(this.make(name, properties), this.main);
    const known = [...MAIN, ...ROWS, ...ADVANCED];
    const others = shown.filter((name) => !known.includes(name));
    for (const name of [...pick(ADVANCED), ...others]) this.add(this.make(name, properties), this.further);
    if (properties.checkpoint && this.size) this.followModel();
  }

  // If a workflow has only one of `cfg` and `guidance`, both keys set it.
  isSecondWord(name) {
    return SAME_INPUT.includes(name) && SAME_INPUT.some((key) => key in (this.entry.inputs ?? {})) && !(name in this.entry.inputs);
  }

  add(field, container) {
    if (field === null) return;
    this.fields.push(field);
    container.append(field.element);
  }

  make(name, properties) {
    const { files = {} } = this.catalog;
    if (name === "size") {
      this.size = new SizeField(withoutNull(properties.width), withoutNull(properties.height));
      return this.size;
    }
    if (name === "loras") return new LoraField(files.loras ?? [], this.hasSeveralModels());
    if (name === "controlnets") return new ControlNetField(files.controlnet ?? []);
    if (name === "output") return new OutputField();
    if (name === "overrides") return new JsonField("overrides", properties[name], false);
    return this.makeOne(name, withoutNull(properties[name]));
  }

  makeOne(path, schema) {
    const name = path.split(".").pop();
    const required = this.required.includes(name);
    const media = this.media[name] ?? (["image", "mask"].includes(path) ? "image" : null);
    if (media !== null) {
      const pictureField = path === "mask" ? this.fieldOf("image") : null;
      const help = path.startsWith("parameters.") ? schema.description : "";
      // The start of a template may be a video: its key is `image` all the same.
      const label = path === "image" && media !== "image" ? words(media) : undefined;
      return new MediaField(path, media, { label, required, help, pictureField });
    }
    if (name === "seed") return new SeedField(path, schema, required);
    const choices = choicesOf(path, schema, this.catalog);
    if (choices !== null) return new SelectField(path, schema, required, choices);
    if (schema.type === "boolean") return new SwitchField(path, schema, required);
    if (schema.type === "integer" || schema.type === "number") return new NumberField(path, schema, required);
    if (schema.type === "object" || schema.type === "array") return null;
    return new TextField(path, schema, required);
  }

  // A file that a workflow names by its file name. Only pictures can be sent by their name.
  makeNamed({ name, media, place }) {
    const field = new MediaField(`images.${name}`, media, { label: name, required: true });
    field.paths.push(place);
    if (media !== "image") {
      field.read = (input) => {
        if (field.value) (input.overrides ??= {})[place] = field.value;
      };
      field.write = (input) => field.set(input.overrides?.[place] ?? "");
      return field;
    }
    field.read = (input) => {
      if (field.value) (input.images ??= []).push({ name, image: field.value });
    };
    field.write = (input) => {
      field.set((input.images ?? []).find((item) => item.name === name)?.image ?? "");
    };
    return field;
  }

  hasSeveralModels() {
    const models = [...(this.entry.inputs?.checkpoint ?? []), ...Object.keys(this.entry.schema.properties.parameters?.properties ?? {})];
    return models.filter((name) => /checkpoint|_model$|ckpt|unet/.test(name)).length > 1;
  }

  // Another family of models has another size.
  followModel() {
    const field = this.fieldOf("checkpoint");
    const usual = this.size.schemas.width.default * this.size.schemas.height.default;
    field.input.addEventListener("change", () => {
      this.size.setArea(/xl|sd3|flux|qwen|pony|illustrious/i.test(field.input.value) ? NEWER_AREA : usual || NEWER_AREA / 4);
    });
  }

  fieldOf(path) {
    return this.fields.find((field) => field.paths.includes(path)) ?? null;
  }

  read() {
    const input = { workflow: this.entry.sent ?? this.entry.name };
    for (const field of this.fields) field.read(input);
    return input;
  }

  write(input) {
    for (const field of this.fields) field.write(input);
    const isAdvanced = (field) => this.further.contains(field.element);
    this.advanced.open = this.fields.some((field) => isAdvanced(field) && field.paths.some((path) => path in input));
  }

  clearErrors() {
    for (const field of this.fields) field.clearError();
    for (const node of this.element.querySelectorAll(".node.invalid")) node.classList.remove("invalid");
    this.banner.hidden = true;
  }

  // Puts each problem where it belongs; the first one gets the focus.
  showFailure({ code, message, details = [] }) {
    this.clearErrors();
    const found = details.map((detail) => this.locate(detail)).filter((place) => place !== null);
    if (details.length === 0 || found.length === 0) found.push(...this.fromSentence(message));
    for (const { field, path, text, detail } of found) {
      if (this.further.contains(field.element)) this.advanced.open = true;
      field.showError(path, inWords(text ?? message, path), detail);
    }
    const isPlaced = found.length > 0 && found.length >= details.length;
    if (!isPlaced || found.some(({ field }) => field.isNode)) this.showBanner(code, message, details);
    if (found.length > 0) found[0].field.focus(found[0].path);
    else this.banner.focus();
    document.activeElement?.scrollIntoView({ block: "center" });
  }

  locate(detail) {
    const key = detail.key ?? detail.name ?? this.keyOfInput(detail);
    const field = key ? this.fieldFor(String(key)) : this.fields.find((candidate) => detail.given && candidate.names?.(detail.given));
    if (field) return { field, path: String(key ?? field.paths[0]), text: detail.problem, detail };
    return this.locateNode(detail);
  }

  keyOfInput({ node_id: nodeId, input }) {
    const place = `${nodeId}.${input}`;
    const inputs = Object.entries(this.entry.inputs ?? {});
    return inputs.find(([, places]) => places.includes(place))?.[0] ?? (this.fieldOf(place) && place);
  }

  locateNode(detail) {
    const node = this.entry.nodeRows?.get(String(detail.node_id));
    if (!node) return null;
    const text = detail.problem ?? detail.message ?? detail.exception_message ?? null;
    return { field: node, path: "", text, detail };
  }

  fieldFor(key) {
    const first = key.split(".")[0];
    return this.fieldOf(key) ?? this.fieldOf(`parameters.${key}`) ?? this.fieldOf(first === "output" ? "output" : first);
  }

  // Errors about files have no details: their sentence begins with the key.
  fromSentence(message) {
    const key = message.split(/[ :]/)[0];
    const field = this.fieldFor(key);
    return field === null ? [] : [{ field, path: key, text: message, detail: {} }];
  }

  showBanner(code, message, details = []) {
    const lines = details.map((detail) => detail.problem ?? detail.message).filter((line) => line && !message.includes(line));
    this.banner.replaceChildren(
      h("strong", { text: code }),
      h("p", { text: message }),
      lines.length > 0 ? h("ul", {}, lines.slice(0, 8).map((line) => h("li", { text: line }))) : "",
    );
    this.banner.hidden = false;
  }
}
