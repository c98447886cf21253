// Asks which endpoint the page calls: this machine's, or one on RunPod.

import { bakedCatalog, connection, servedPage, setConnection } from "./api.js";
import { h, newId, openDialog } from "./dom.js";

export function openConnectionDialog(onChange, problem = "") {
  const chosen = connection();
  const target = h("select", { id: newId("target") });
  if (bakedCatalog() === null) target.append(h("option", { value: "local", text: "This worker" }));
  target.append(h("option", { value: "runpod", text: "An endpoint on RunPod" }));
  target.value = chosen.target;
  const endpoint = h("input", { type: "text", id: newId("endpoint"), value: chosen.endpoint, placeholder: "abc123def456", autocomplete: "off", spellcheck: "false" });
  const key = h("input", { type: "password", id: newId("key"), value: chosen.key, autocomplete: "off" });
  const remember = h("input", { type: "checkbox", class: "switch", role: "switch", id: newId("remember") });
  remember.checked = chosen.remember;
  const endpointRow = h("div", { class: "field" }, h("label", { class: "label", for: endpoint.id, text: "Endpoint id or URL" }), endpoint);
  const error = h("p", { class: "error", role: "alert", text: problem, hidden: !problem });
  const form = h(
    "form",
    { class: "fields", novalidate: true },
    error,
    h("div", { class: "field" }, h("label", { class: "label", for: target.id, text: "Run on" }), target),
    endpointRow,
    h("div", { class: "field" }, h("label", { class: "label", for: key.id, text: "API key" }), key, h("p", { class: "help", text: "It stays in this browser and goes only to this endpoint." })),
    h("div", { class: "field inline" }, h("label", { class: "label", for: remember.id, text: "Remember in this browser" }), remember),
    h("div", { class: "dialog-foot" }, saveLink(), h("button", { type: "submit", class: "primary", text: "Use it" })),
  );
  const show = () => { endpointRow.hidden = target.value === "local"; };
  target.addEventListener("change", show);
  show();
  const dialog = openDialog("Connection", form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (target.value === "runpod" && !endpoint.value.trim()) {
      error.textContent = "Enter the id of the endpoint.";
      error.hidden = false;
      endpoint.focus();
      return;
    }
    setConnection({ target: target.value, endpoint: endpoint.value.trim(), key: key.value.trim(), remember: remember.checked });
    dialog.close();
    onChange();
  });
  return dialog;
}

// The page with its list of templates as one file, to use with RunPod.
function saveLink() {
  if (bakedCatalog() !== null) return h("span");
  const save = async () => {
    const text = await servedPage();
    const url = URL.createObjectURL(new Blob([text], { type: "text/html" }));
    h("a", { href: url, download: "comfy-worker.html" }).click();
    URL.revokeObjectURL(url);
  };
  return h("button", { type: "button", class: "quiet", text: "Save this page as one file", on: { click: save } });
}
