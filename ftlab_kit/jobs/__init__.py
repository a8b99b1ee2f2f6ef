"""Long work as jobs: states, processes, supervisor, worker, log.

A kind of job is one entry of KINDS. What is common to all kinds stands here: the table of states
and commands, the mailbox, the slots, and the processes that outlive whoever started a job.
"""
