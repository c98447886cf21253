// Opens the workflow that the page's address names: http://127.0.0.1:8188/?open=NAME
//
// A template may be in API format, which the page's own list of workflows cannot open.
import { app } from "../../scripts/app.js";

const LOOK_MS = 100;

async function userFile(path) {
    const answer = await fetch(`userdata/${encodeURIComponent(path)}`);
    return answer.ok ? answer.json() : null;
}

async function open(name) {
    const path = `workflows/${name}.json`;
    const saved = await userFile(path);
    if (saved) {
        const known = app.extensionManager.workflow?.getWorkflowByPath?.(path);
        await app.loadGraphData(saved, true, true, known ?? name);
        return;
    }
    const template = await userFile(`open/${name}.json`);
    if (template) await app.loadApiJson(template, name);
}

app.registerExtension({
    name: "comfy_worker.open",
    setup() {
        const name = new URLSearchParams(location.search).get("open");
        if (!name) return;
        // Earlier, the page would open its last workflow above this one.
        const timer = setInterval(async () => {
            if (!app.vueAppReady || !app.extensionManager) return;
            clearInterval(timer);
            await open(name);
            window.comfyWorkerOpened = name;
        }, LOOK_MS);
    },
});
