"""A run's folder belongs to one run at a time."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from lm.core.errors import UserError

with contextlib.suppress(ImportError):  # Windows has none: there, nobody is kept out
    import fcntl

# What flock says where the file system knows no locks, as some networked ones do.
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Hold `workdir`/lock, which the system lets go when this process ends, however it ends.

    Raises `UserError` if another process holds it; where there are no locks, it holds none."""
    try:
        file = (workdir / "lock").open("a")
    except OSError as e:
        raise UserError(f"cannot write to {workdir}: {e.strerror}; choose another --workdir") from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(
                f"another process is training in {workdir}: wait for its end, or choose another --workdir (processes "
                "of one run are told of each other by --coordinator)"
            ) from e
        except NameError:
            pass
        except OSError as e:
            if e.errno not in UNKNOWN:
                raise
        yield
