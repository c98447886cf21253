// Makes elements without markup in strings, so that no text of a client becomes HTML.

const SVG = "http://www.w3.org/2000/svg";

// Path data of the icons, drawn on 24 x 24 with a stroke.
const ICONS = {
  dice: "M7 4h10a3 3 0 0 1 3 3v10a3 3 0 0 1-3 3H7a3 3 0 0 1-3-3V7a3 3 0 0 1 3-3zM9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01",
  swap: "M4 8h15m0 0-3-3m3 3-3 3M20 16H5m0 0 3-3m-3 3 3 3",
  plus: "M12 5v14M5 12h14",
  cross: "M6 6l12 12M18 6 6 18",
  brush: "M14 5l5 5-8 8H6v-5zM13 20h7",
  undo: "M9 7 4 12l5 5M4 12h10a5 5 0 0 1 0 10h-2",
  upload: "M12 16V4m0 0L7 9m5-5 5 5M4 16v4h16v-4",
  download: "M12 4v12m0 0-5-5m5 5 5-5M4 18v2h16v-2",
  play: "M8 5v14l11-7z",
  stop: "M7 7h10v10H7z",
  back: "M15 5l-7 7 7 7",
  copy: "M9 9h10v11H9zM5 15V4h10",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M9 9h.01",
  video: "M4 6h11v12H4zM15 10l5-3v10l-5-3",
  audio: "M9 18V6l10-2v12M9 18a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0zm10-2a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0z",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  reuse: "M4 12a8 8 0 0 1 14-5l2 2m0-5v5h-5M20 12a8 8 0 0 1-14 5l-2-2m0 5v-5h5",
  alert: "M12 4 2.5 20h19zM12 10v4m0 3h.01",
};

// Properties: `on` holds listeners, `class` and `text` are what they say, the rest are attributes.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    } else if (name === "text") {
      element.textContent = value;
    } else if (name === "value") {
      element.value = value;
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function icon(name, size = 18) {
  const drawing = document.createElementNS(SVG, "svg");
  const attributes = { viewBox: "0 0 24 24", width: size, height: size, class: "icon", "aria-hidden": "true" };
  for (const [key, value] of Object.entries(attributes)) drawing.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  drawing.append(path);
  return drawing;
}

export function iconButton(name, label, onClick, className = "icon-button") {
  const listeners = { click: onClick };
  return h("button", { type: "button", class: className, "aria-label": label, title: label, on: listeners }, icon(name));
}

let nextId = 0;

export function newId(prefix) {
  nextId += 1;
  return `${prefix}-${nextId}`;
}

// Says a sentence to screen readers.
export function announce(text) {
  document.getElementById("live").textContent = text;
}

export function words(name) {
  const text = name.replace(/[_-]+/g, " ").trim();
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

export function formatTime(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

// A dialog that closes by Escape and gives the focus back to what opened it.
export function openDialog(title, content, className = "") {
  const headingId = newId("dialog");
  const dialog = h(
    "dialog",
    { class: `dialog ${className}`, "aria-labelledby": headingId },
    h(
      "div",
      { class: "dialog-head" },
      h("h2", { id: headingId, text: title }),
      iconButton("cross", "Close", () => dialog.close()),
    ),
    content,
  );
  const opener = document.activeElement;
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (opener instanceof HTMLElement) opener.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
