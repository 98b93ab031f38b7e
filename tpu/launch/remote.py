"""A script on a host that is reached by a shell: started so that it outlives the connection, asked, stopped.

In its folder stand run.sh, run.log, run.pid and, once it has ended, run.status."""

PYTHON = ".venv/bin/python"  # in that folder
KEEP_STATUS = "trap 'echo $? > run.status' EXIT"  # a line of run.sh


def start(home: str, arguments: str = "") -> str:
    """Where it runs already, it says so: to start twice is to start once."""
    return (
        f"cd {home} && if [ -s run.pid ] && kill -0 $(cat run.pid) 2>/dev/null; then echo 'runs already'; else "
        f"rm -f run.status; setsid nohup bash run.sh{arguments} >> run.log 2>&1 < /dev/null & echo $! > run.pid; fi"
    )


def stop(home: str) -> str:
    """It saves, and ends with status 143."""
    return f"kill -TERM $(cat {home}/run.pid)"


def ended(home: str) -> str:
    """Prints the status with which it has ended, or nothing."""
    return f"cat {home}/run.status 2>/dev/null || true"


def follow(home: str) -> str:
    return f"tail -n 100 -F {home}/run.log"
