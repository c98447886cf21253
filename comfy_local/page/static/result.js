// Shows a result: its files, its seed, warnings, and how long each part took.

import { openCopyDialog } from "./copy.js";
import { formatBytes, formatTime, h, icon, openDialog } from "./dom.js";

const LISTS = ["images", "videos", "audio", "files"];
const MOST_NODES = 12;
const STAGES = { wait: "Wait for ComfyUI", prepare: "Prepare", execute: "Execute" };

// A URL of a file of a result. Data of this page becomes a blob, which can be any size.
export function urlOf(file) {
  if (file.type !== "base64") return file.data;
  const binary = atob(file.data);
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: file.mime_type }));
}

function nameOf(file) {
  return file.filename.split("/").pop();
}

// `actions`: what the workbench can do with a result: useSeed(seed), useImage(dataUrl) or null.
export function showResult(result, input, entry, actions) {
  const media = [];
  for (const list of LISTS) for (const file of result[list] ?? []) media.push(shownFile(file, actions));
  for (const text of result.texts ?? []) media.push(h("blockquote", { class: "text-result", text: text.data }));
  const isSingle = media.length === 1;
  return h(
    "section",
    { class: "result", "aria-label": "Result" },
    media.length > 0 ? h("div", { class: isSingle ? "media-grid single" : "media-grid" }, media) : h("p", { class: "loading", text: "The job returned no file." }),
    facts(result, input, entry, actions),
    warnings(result.warnings ?? []),
    timings(result.timings, entry.nodes ?? {}),
  );
}

function shownFile(file, actions) {
  const url = urlOf(file);
  const size = file.width ? `${file.width} x ${file.height}` : "";
  const caption = [size, formatBytes(file.bytes), file.mime_type.split("/").pop().toUpperCase()].filter(Boolean).join(" · ");
  const tools = h("div", { class: "file-tools" });
  const link = { class: "quiet", href: url, download: nameOf(file), rel: "noopener" };
  tools.append(h("a", link, icon("download", 16), "Download"));
  const isImage = file.mime_type.startsWith("image/");
  if (isImage && file.type === "base64" && actions.useImage) {
    const use = () => actions.useImage(`data:${file.mime_type};base64,${file.data}`);
    tools.append(h("button", { type: "button", class: "quiet", on: { click: use } }, icon("image", 16), "Use as input"));
  }
  return h(
    "figure",
    { class: "file" },
    player(file, url),
    h("figcaption", {}, h("span", { class: "file-facts", text: caption }), tools),
  );
}

function player(file, url) {
  const name = nameOf(file);
  if (file.mime_type.startsWith("video/")) return h("video", { src: url, controls: true, loop: true, playsinline: true, "aria-label": name });
  if (file.mime_type.startsWith("audio/")) return h("audio", { src: url, controls: true, "aria-label": name });
  if (!file.mime_type.startsWith("image/")) return h("p", { class: "other-file" }, icon("file", 28), name);
  const enlarge = () => openDialog(name, h("img", { src: url, alt: name, class: "whole" }), "wide");
  const image = h("img", { src: url, alt: `Result ${name}` });
  return h("button", { type: "button", class: "enlarge", "aria-label": `Enlarge ${name}`, on: { click: enlarge } }, image);
}

function facts(result, input, entry, actions) {
  const bar = h("div", { class: "facts" });
  const seed = result.seed;
  if (seed !== null && seed !== undefined) {
    const keep = () => actions.useSeed(seed);
    bar.append(h("span", { class: "fact" }, "Seed ", h("strong", { class: "mono", text: String(seed) })));
    bar.append(h("button", { type: "button", class: "quiet", on: { click: keep } }, icon("reuse", 16), "Keep this seed"));
  }
  if (result.timings) bar.append(h("span", { class: "fact" }, "Took ", h("strong", { text: formatTime(result.timings.stages.total) })));
  const repeatable = repeatableInput(input, seed);
  bar.append(h("button", { type: "button", class: "quiet", on: { click: () => openCopyDialog(repeatable, entry.result) } }, icon("copy", 16), "Copy as code"));
  return bar;
}

// The request that makes the same files again.
export function repeatableInput(input, seed) {
  const { output, ...rest } = input;
  const { preview: _preview, ...kept } = output ?? {};
  if (Object.keys(kept).length > 0) rest.output = kept;
  return seed === null || seed === undefined ? rest : { ...rest, seed };
}

function warnings(list) {
  if (list.length === 0) return null;
  return h("div", { class: "warnings", role: "note" }, h("h3", { text: list.length === 1 ? "Warning" : "Warnings" }), h("ul", {}, list.map((text) => h("li", { text }))));
}

function timings(found, titles) {
  if (!found) return null;
  const stages = Object.entries(STAGES).map(([key, title]) => [title, found.stages[key] ?? 0]);
  const nodes = Object.entries(found.nodes ?? {}).sort(([, a], [, b]) => b - a);
  const shown = nodes.slice(0, MOST_NODES).map(([nodeId, time]) => [titles[nodeId] ?? `Node ${nodeId}`, time]);
  const body = h("div", { class: "timing-columns" }, bars("Stages", stages), shown.length > 0 ? bars("Nodes", shown) : null);
  return h("details", { class: "timings", open: true }, h("summary", { text: "Timings" }), body);
}

function bars(title, rows) {
  const longest = Math.max(1, ...rows.map(([, time]) => time));
  const list = h("dl", { class: "bars" });
  for (const [name, time] of rows) {
    const bar = h("span", { class: "bar-fill", "aria-hidden": "true" });
    bar.style.width = `${Math.max(1, (time / longest) * 100)}%`;
    list.append(h("dt", { text: name }), h("dd", {}, h("span", { class: "bar-track" }, bar), h("span", { class: "bar-time", text: formatTime(time) })));
  }
  return h("div", {}, h("h3", { text: title }), list);
}
