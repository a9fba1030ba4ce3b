"""SLURM: batch scripts, the queue behind its port, the worker inside an allocation, and the loop that submits."""
