// Shows a job while it runs: how far it is, what runs now, and a preview.

import { announce, formatTime, h } from "./dom.js";

const WAITING = { IN_QUEUE: "Waiting for a worker", IN_PROGRESS: "Starting" };

export class Progress {
  constructor(onCancel) {
    this.started = performance.now();
    this.percent = 0;
    this.saidNode = "";
    this.titles = {}; // of nodes that the worker added, too
    this.fill = h("span", { class: "progress-fill" });
    this.track = h("div", { class: "progress", role: "progressbar", "aria-label": "Progress of the job", "aria-valuemin": "0", "aria-valuemax": "100" }, this.fill);
    this.number = h("span", { class: "percent", text: "" });
    this.message = h("p", { class: "message", text: "Sending the request" });
    this.time = h("span", { class: "elapsed", text: "" });
    this.picture = h("div", { class: "preview-stage waiting" });
    this.cancel = h("button", { type: "button", class: "quiet", text: "Cancel", on: { click: () => {
      this.cancel.disabled = true;
      this.message.textContent = "Cancelling";
      onCancel();
    } } });
    this.element = h(
      "section",
      { class: "running", "aria-label": "Running job" },
      this.picture,
      h("div", { class: "progress-head" }, this.message, this.number),
      this.track,
      h("div", { class: "progress-foot" }, this.time, this.cancel),
    );
    this.clock = setInterval(() => this.showTime(), 250);
  }

  update(job) {
    const now = Array.isArray(job.output) ? job.output.at(-1) : job.output;
    if (this.cancel.disabled) return;
    this.message.textContent = now?.message ?? WAITING[job.status] ?? job.status;
    this.remaining = now?.eta_s ?? now?.eta ?? null;
    if (typeof now?.percent === "number") this.showPercent(now.percent);
    if (now?.preview) this.showPreview(now.preview);
    if (now?.node_id) this.titles[now.node_id] = now.node;
    const node = now?.node ?? job.status;
    if (node !== this.saidNode) announce(`${now?.message ?? this.message.textContent}, ${Math.round(this.percent)} percent`);
    this.saidNode = node;
  }

  showPercent(percent) {
    this.percent = Math.max(this.percent, percent);
    this.fill.style.width = `${this.percent}%`;
    this.track.setAttribute("aria-valuenow", String(Math.round(this.percent)));
    this.number.textContent = `${Math.round(this.percent)}%`;
  }

  showPreview(source) {
    if (!source.startsWith("data:image/")) return;
    const image = this.picture.querySelector("img") ?? h("img", { alt: "Preview of the running job" });
    image.src = source;
    if (!image.isConnected) this.picture.replaceChildren(image);
    this.picture.classList.remove("waiting");
  }

  showTime() {
    const passed = performance.now() - this.started;
    const left = typeof this.remaining === "number" ? `, about ${formatTime(this.remaining * 1000)} left` : "";
    this.time.textContent = `${formatTime(Math.max(1000, passed))}${left}`;
  }

  end() {
    clearInterval(this.clock);
  }
}
