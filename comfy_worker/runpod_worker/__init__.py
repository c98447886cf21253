"""Everything that knows RunPod: the job loop, answers, progress, shutdown, fitness checks."""
