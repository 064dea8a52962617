"""Work in threads, ahead of whoever takes the results, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`, which the pool works on. At most `ahead` items wait for theirs.

    `pool.map` would take all items at once.
    """
    running: deque[Future[Result]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) > ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


class ReadAhead(Generic[Item]):
    """At most `limit` items of an iterator that runs in a thread of its own: FFmpeg releases the interpreter's lock.

    Where nobody takes the items, the iterator waits. With `drop` it goes on, and the oldest item is lost of which
    `drop` returns that it may be. It is called in the thread. `interrupt` is called where the thread shall end before
    its items do: it may end what the thread waits for.
    """

    def __init__(
        self,
        items: Iterable[Item],
        limit: int,
        drop: Callable[[Item], bool] | None = None,
        interrupt: Callable[[], object] | None = None,
    ) -> None:
        self.limit, self.drop, self.interrupt = limit, drop, interrupt
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def __enter__(self) -> ReadAhead[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread: what it reads from may be closed after this, not before."""
        self.stop()
        if self.interrupt and not self._ended:
            self.interrupt()
        self._thread.join()

    def batches(self, most: int) -> Iterator[list[Item]]:
        """Yield all items that are there, at most so many at a time; wait where there is none.

        What the iterator raises is raised here after its last item.
        """
        try:
            while batch := self._take(most):
                yield batch
        finally:
            self.stop()

    def stop(self) -> None:
        """Let the thread end after the item that it is making, and take no more."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def _take(self, most: int) -> list[Item]:
        with self._changed:
            while not (self._items or self._ended or self._stopped):
                self._changed.wait(1.0)  # not for ever: a signal is handled between two waits
            batch = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
        if not batch and self._problem is not None and not self._stopped:
            raise self._problem
        return batch

    def _run(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    break
        except BaseException as problem:  # raised where the items are taken
            self._problem = problem
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        with self._changed:
            while self.drop is None and len(self._items) >= self.limit and not self._stopped:
                self._changed.wait()
            if self.drop is not None and len(self._items) >= self.limit:
                lost = next((place for place, waiting in enumerate(self._items) if self.drop(waiting)), None)
                if lost is not None:
                    del self._items[lost]
            self._items.append(item)
            self._changed.notify_all()
            return not self._stopped
