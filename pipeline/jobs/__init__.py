"""From runs to jobs: what is submitted once, how it stands, what a job does, how it is ended."""
