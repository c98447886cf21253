// Paints a mask on a picture: white is repainted, black stays.

import { announce, h, icon, iconButton, newId, openDialog } from "./dom.js";
import { grayPng } from "./gray_png.js";

const INK = "rgb(255 64 129 / 0.62)";
const LARGEST_SIDE = 4096;

// Calls `done` with the mask as a data URI of a PNG of the picture's size.
export async function openMaskPainter(pictureUrl, done) {
  const picture = new Image();
  picture.src = pictureUrl;
  await picture.decode();
  const painter = new MaskPainter(picture);
  const dialog = openDialog("Paint what is to change", painter.element, "painter");
  painter.finish = async () => {
    painter.use.disabled = true;
    done(await painter.mask());
    announce("The mask is set");
    dialog.close();
  };
  painter.canvas.focus();
}

class MaskPainter {
  constructor(picture) {
    const scale = Math.min(1, LARGEST_SIDE / Math.max(picture.naturalWidth, picture.naturalHeight));
    this.width = Math.round(picture.naturalWidth * scale);
    this.height = Math.round(picture.naturalHeight * scale);
    this.strokes = [];
    this.stroke = null;
    this.cursor = { x: this.width / 2, y: this.height / 2 };
    this.element = h("div", { class: "painter-body" });
    this.makeTools();
    this.makeCanvas(picture);
    this.redraw();
  }

  makeTools() {
    const diameter = Math.round(Math.min(this.width, this.height) / 8);
    const sizeId = newId("brush");
    this.size = h("input", { type: "range", id: sizeId, min: 1, max: Math.max(4, Math.round(Math.min(this.width, this.height) / 2)), value: Math.max(2, diameter) });
    this.eraser = h("button", { type: "button", class: "quiet", "aria-pressed": "false", text: "Erase" });
    this.eraser.addEventListener("click", () => {
      this.eraser.setAttribute("aria-pressed", String(this.eraser.getAttribute("aria-pressed") !== "true"));
    });
    this.undo = iconButton("undo", "Undo", () => {
      this.strokes.pop();
      this.redraw();
    });
    const clear = h("button", { type: "button", class: "quiet", text: "Clear", on: { click: () => {
      this.strokes = [];
      this.redraw();
    } } });
    const fill = h("button", { type: "button", class: "quiet", text: "Invert", on: { click: () => {
      this.strokes.push({ invert: true });
      this.redraw();
    } } });
    this.use = h("button", { type: "button", class: "primary", text: "Use this mask", on: { click: () => this.finish() } });
    const brush = h("div", { class: "brush" }, h("label", { for: sizeId, class: "inner", text: "Brush" }), this.size);
    this.element.append(h("div", { class: "painter-tools" }, brush, this.eraser, this.undo, clear, fill, this.use));
  }

  makeCanvas(picture) {
    const canvas = h("canvas", {
      width: this.width, height: this.height, tabindex: "0", role: "application",
      "aria-label": "Mask. Draw with the pointer, or move with the arrow keys and paint with the space bar. Control and Z undoes.",
    });
    this.canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, () => this.end());
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    picture.className = "painter-picture";
    picture.alt = "";
    this.ring = h("span", { class: "ring", "aria-hidden": "true", hidden: true });
    this.element.append(h("div", { class: "painter-stage" }, h("div", { class: "painter-stack" }, picture, canvas, this.ring)));
    canvas.addEventListener("pointerleave", () => { this.ring.hidden = true; });
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    const y = ((event.clientY - box.top) / box.height) * this.height;
    return { x, y };
  }

  begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    this.stroke = this.newStroke(this.at(event));
    this.redraw();
  }

  newStroke(point) {
    const stroke = { size: Number(this.size.value), erases: this.eraser.getAttribute("aria-pressed") === "true", points: [point] };
    this.strokes.push(stroke);
    return stroke;
  }

  move(event) {
    this.showRing(this.at(event));
    if (this.stroke === null) return;
    for (const step of event.getCoalescedEvents?.() ?? [event]) this.stroke.points.push(this.at(step));
    this.redraw();
  }

  end() {
    this.stroke = null;
  }

  onKey(event) {
    const step = Number(this.size.value) / 2;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      const [x, y] = moves[event.key];
      this.cursor.x = Math.min(this.width, Math.max(0, this.cursor.x + x));
      this.cursor.y = Math.min(this.height, Math.max(0, this.cursor.y + y));
    } else if (event.key === " ") {
      this.newStroke({ ...this.cursor });
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      this.strokes.pop();
    } else {
      return;
    }
    event.preventDefault();
    this.redraw();
    this.showRing(this.cursor);
  }

  showRing({ x, y }) {
    const diameter = `${(Number(this.size.value) / this.width) * 100}%`;
    this.ring.hidden = false;
    this.ring.style.width = diameter;
    this.ring.style.left = `${(x / this.width) * 100}%`;
    this.ring.style.top = `${(y / this.height) * 100}%`;
  }

  redraw() {
    this.draw(this.canvas.getContext("2d"), INK);
    const isEmpty = this.strokes.length === 0;
    this.undo.disabled = isEmpty;
    this.use.disabled = isEmpty;
  }

  draw(context, ink) {
    context.clearRect(0, 0, this.width, this.height);
    for (const stroke of this.strokes) this.drawStroke(context, stroke);
    // One color for all, so that strokes that cross do not add up.
    context.globalCompositeOperation = "source-in";
    context.fillStyle = ink;
    context.fillRect(0, 0, this.width, this.height);
    context.globalCompositeOperation = "source-over";
  }

  drawStroke(context, stroke) {
    if (stroke.invert) {
      context.globalCompositeOperation = "xor";
      context.fillStyle = "white";
      context.fillRect(0, 0, this.width, this.height);
      return;
    }
    context.globalCompositeOperation = stroke.erases ? "destination-out" : "source-over";
    context.strokeStyle = "white";
    context.lineWidth = stroke.size;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    const [first, ...rest] = stroke.points;
    context.moveTo(first.x, first.y);
    context.lineTo(first.x + 0.01, first.y);
    for (const { x, y } of rest) context.lineTo(x, y);
    context.stroke();
  }

  mask() {
    const strokes = document.createElement("canvas");
    Object.assign(strokes, { width: this.width, height: this.height });
    const context = strokes.getContext("2d");
    this.draw(context, "white");
    const { data } = context.getImageData(0, 0, this.width, this.height);
    const pixels = new Uint8Array(this.width * this.height);
    for (let index = 0; index < pixels.length; index += 1) pixels[index] = data[index * 4 + 3];
    return grayPng(pixels, this.width, this.height);
  }
}

export function paintButton(onClick) {
  return h("button", { type: "button", class: "quiet", on: { click: onClick } }, icon("brush"), "Paint a mask");
}
