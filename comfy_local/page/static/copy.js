// Writes a request as curl, Python or JSON, to run it elsewhere.

import { baseUrl, connection } from "./api.js";
import { announce, h, openDialog } from "./dom.js";

// Longer arguments are refused by Linux.
const LONGEST_ARGUMENT = 100_000;
const SHOWN = 4_000;
// How to write the first file of a result, by its list.
const FILES = {
  image: ["images", "image.png"],
  video: ["videos", "video.mp4"],
  audio: ["audio", "audio.flac"],
};

function keyVariable() {
  return connection().target === "local" ? "SERVE_API_KEY" : "RUNPOD_API_KEY";
}

export function asJson(input) {
  return JSON.stringify({ input }, null, 2);
}

export function asCurl(input, result = "image") {
  const body = JSON.stringify({ input });
  const [list, file] = FILES[result] ?? FILES.image;
  const lines = [`curl -s '${baseUrl()}/runsync?wait=300000'`, "  -H 'Content-Type: application/json'"];
  if (connection().key || connection().target !== "local") lines.push(`  -H "Authorization: Bearer $${keyVariable()}"`);
  const save = `jq -r '.output.${list}[0].data' | base64 -d > ${file}`;
  if (body.length > LONGEST_ARGUMENT) {
    return `${lines.join(" \\\n")} \\\n  -d @- <<'JSON' | ${save}\n${body}\nJSON`;
  }
  lines.push(`  -d '${body.replaceAll("'", "'\\''")}'`);
  return `${lines.join(" \\\n")} \\\n  | ${save}`;
}

export function asPython(input, result = "image") {
  const [list, file] = FILES[result] ?? FILES.image;
  const needsKey = connection().key || connection().target !== "local";
  const lines = ["import base64", needsKey ? "import os" : null, "", "import requests", ""];
  lines.push(`job = {"input": ${pythonValue(input, 0)}}`);
  if (needsKey) lines.push(`headers = {"Authorization": f"Bearer {os.environ['${keyVariable()}']}"}`);
  const headers = needsKey ? ", headers=headers" : "";
  lines.push(`url = "${baseUrl()}/runsync?wait=300000"`);
  lines.push(`answer = requests.post(url, json=job${headers}, timeout=310).json()`);
  lines.push(`data = answer["output"]["${list}"][0]["data"]`);
  lines.push(`with open("${file}", "wb") as file:`, "    file.write(base64.b64decode(data))", "");
  return lines.filter((line) => line !== null).join("\n");
}

// JSON's text is Python's, except for three words.
function pythonValue(value, depth) {
  const pad = "    ".repeat(depth + 1);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const items = isList
    ? value.map((item) => pythonValue(item, depth + 1))
    : Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${pythonValue(item, depth + 1)}`);
  const [open, close] = isList ? "[]" : "{}";
  if (items.length === 0) return open + close;
  return `${open}\n${pad}${items.join(`,\n${pad}`)},\n${"    ".repeat(depth)}${close}`;
}

export function openCopyDialog(input, result) {
  const texts = { curl: asCurl(input, result), Python: asPython(input, result), JSON: asJson(input) };
  const shown = h("pre", { class: "code", tabindex: "0", "aria-label": "The request" });
  const copied = h("button", { type: "button", class: "primary", text: "Copy" });
  let current = "curl";
  const tabs = h("div", { class: "segments", role: "group", "aria-label": "Format" });
  const choose = (name) => {
    current = name;
    const text = texts[name];
    const rest = text.length - SHOWN;
    shown.textContent = rest > 0 ? `${text.slice(0, SHOWN)}\n... ${rest.toLocaleString("en")} more characters` : text;
    copied.textContent = "Copy";
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.textContent === name));
  };
  for (const name of Object.keys(texts)) {
    tabs.append(h("button", { type: "button", text: name, on: { click: () => choose(name) } }));
  }
  copied.addEventListener("click", async () => {
    await copyText(texts[current]);
    copied.textContent = "Copied";
    announce(`Copied as ${current}`);
  });
  choose("curl");
  return openDialog("Copy this request", h("div", { class: "copy" }, tabs, shown, copied), "wide");
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages of another machine without HTTPS have no clipboard, but may copy a selection.
    const area = h("textarea", { class: "unseen", value: text });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
