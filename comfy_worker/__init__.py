"""The RunPod worker: runs one job after another on a ComfyUI of its own."""
