"""A run's folder belongs to one run at a time."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from lm.core.errors import UserError

with contextlib.suppress(ImportError):  # Windows has none, so runs are not locked there
    import fcntl

# What flock reports on file systems without locks, such as some networked ones.
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Hold `workdir`/lock; the system releases it when this process ends, however it ends.

    Raises `UserError` if another process holds it. Does nothing where the file system has no locks."""
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
