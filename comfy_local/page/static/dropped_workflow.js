// A workflow that the user drops: its parameters are what the worker finds in it.

import { h, icon } from "./dom.js";
import { runToEnd } from "./job.js";
import { readAsDataUrl } from "./media_field.js";

const LARGEST_FILE_BYTES = 7_300_000;
const MOST_FILES = 20;
const FILE_NAME = /\.\w{2,5}$/;
// Small files of each type, so that the worker reads a workflow before its files are chosen.
const STAND_INS = {
  image: "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAKUlEQVR42u3MQREAAAwCIKMb3RD77SAA6VEEAoFAIBAIBAKBQCAQfA8G320AeXC6efoAAAAASUVORK5CYII=",
  audio: "data:audio/wav;base64,UklGRigAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQQAAAAAAAAA",
  video: "data:video/mp4;base64,AAAAGGZ0eXBpc29tAAACAGlzb21tcDQx",
};
const SENT_ELSEWHERE = ["width", "height"];

// What `workflow` should be for a file. Throws an Error with a sentence for the user.
export async function workflowInFile(file) {
  if (file.size > LARGEST_FILE_BYTES) throw new Error(`${file.name} is too large for a request.`);
  if (file.type.startsWith("image/")) return { workflow: await readAsDataUrl(file), input: {} };
  let value;
  try {
    value = JSON.parse(await file.text());
  } catch {
    throw new Error(`${file.name} is neither JSON nor a picture that ComfyUI saved.`);
  }
  if (value === null || typeof value !== "object") throw new Error(`${file.name} holds no workflow.`);
  // A whole request, as this page's "Copy as JSON" writes it.
  if (value.input?.workflow) return { workflow: value.input.workflow, input: value.input };
  return { workflow: value, input: {} };
}

// Asks the worker what a workflow has. Throws a JobFailure if it is no workflow.
export async function inspectWorkflow(name, workflow, catalog) {
  const input = { workflow, validate_only: true };
  let found = await runToEnd(input);
  const missing = missingFiles(found.findings ?? []);
  if (missing.length > 0) {
    const overrides = Object.fromEntries(missing.map(({ place, media }) => [place, STAND_INS[media]]));
    found = await runToEnd({ ...input, overrides });
  }
  return { found, entry: entryOf(name, workflow, found, catalog, missing) };
}

// The files that nodes such as LoadImage name and that came with no job.
function missingFiles(findings) {
  const unsent = findings.filter(({ type, given }) => type === "missing_input_file" && typeof given === "string" && FILE_NAME.test(given));
  return unsent.slice(0, MOST_FILES).map(({ node_id: nodeId, input, given }) => ({ name: given, place: `${nodeId}.${input}`, media: mediaOf(given) }));
}

function mediaOf(name) {
  if (/\.(mp4|webm|mov|mkv|avi|m4v)$/i.test(name)) return "video";
  return /\.(flac|mp3|wav|ogg|opus|m4a|aac)$/i.test(name) ? "audio" : "image";
}

function entryOf(name, workflow, found, catalog, missing) {
  const places = found.roles?.places ?? {};
  const known = catalog.input?.properties ?? {};
  const properties = {};
  const parameters = {};
  for (const [key, value] of Object.entries(found.parameters)) {
    if (key in known) properties[key] = { ...withDefault(known[key], value) };
    else parameters[key] = guessed(value);
  }
  if (SENT_ELSEWHERE.some((key) => !(key in properties))) for (const key of SENT_ELSEWHERE) delete properties[key];
  // Several pictures are clearer by their names than as `image` and others.
  const hasOnePicture = missing.filter(({ media }) => media === "image").length < 2;
  if (hasOnePicture) for (const key of ["image", "mask"]) if (key in places) properties[key] = known[key];
  const hasSampler = (found.roles?.samplers ?? []).length > 0;
  const always = ["output", "overrides", ...(hasSampler ? ["loras", "controlnets"] : [])];
  for (const key of always) if (known[key]) properties[key] = known[key];
  if (catalog.files?.checkpoints?.length && properties.checkpoint) Object.assign(properties.checkpoint, { enum: catalog.files.checkpoints, isOwn: true });
  return {
    name,
    title: name,
    description: "A workflow of your own. The fields are what the worker found in it.",
    sent: workflow,
    schema: { properties: { ...properties, parameters: { properties: parameters } }, required: [] },
    inputs: places,
    nodes: titlesOf(found.workflow),
    files: hasOnePicture ? otherFiles(missing, places) : missing,
    findings: found.findings,
    result: "image",
    isCustom: true,
  };
}

function withDefault(schema, value) {
  const options = (schema.anyOf ?? []).filter((option) => option.type !== "null");
  const { anyOf: _anyOf, ...rest } = schema;
  const merged = { ...rest, ...(options[0] ?? {}), default: value };
  if (schema.multipleOf === undefined && ["width", "height"].includes(schema.title?.toLowerCase())) merged.multipleOf = 8;
  return merged;
}

function guessed(value) {
  const types = { boolean: "boolean", number: Number.isInteger(value) ? "integer" : "number" };
  return { type: types[typeof value] ?? "string", default: value };
}

function titlesOf(workflow = {}) {
  const titles = {};
  for (const [nodeId, node] of Object.entries(workflow)) titles[nodeId] = node._meta?.title ?? node.class_type;
  return titles;
}

// The key `image` sends one of the files; the others need fields of their own.
function otherFiles(missing, places) {
  const ofKeys = [...(places.image ?? []), ...(places.mask ?? [])];
  return missing.filter(({ place }) => !ofKeys.includes(place));
}

// The nodes of a workflow as a list, on which errors can land.
export function nodeList(entry) {
  entry.nodeRows = new Map();
  const list = h("ol", { class: "nodes" });
  for (const [nodeId, title] of Object.entries(entry.nodes)) {
    const error = h("p", { class: "error", hidden: true });
    const item = h("li", { class: "node", tabindex: "-1", "data-node": nodeId }, h("span", { class: "node-id", text: nodeId }), h("span", { text: title }), error);
    list.append(item);
    entry.nodeRows.set(nodeId, {
      element: item,
      isNode: true,
      paths: [],
      showError: (_path, text) => {
        item.classList.add("invalid");
        error.replaceChildren(icon("alert", 16), text);
        error.hidden = false;
        item.closest("details").open = true;
      },
      focus: () => item.focus(),
    });
  }
  const count = Object.keys(entry.nodes).length;
  return h("details", { class: "advanced" }, h("summary", { text: `Nodes (${count})` }), list);
}
