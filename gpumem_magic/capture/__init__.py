"""Sources of facts: the live tracker, recordings on disk, samples, and who shares the GPU with us."""
