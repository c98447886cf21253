"""The ComfyUI process that the worker owns: started, watched, spoken to and ended."""
