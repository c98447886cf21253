"""RunPod's API on this machine, and the first picture."""
