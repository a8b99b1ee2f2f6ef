"""The worker's side of training: everything that runs inside a job's process."""
