"""List ranking by pointer jumping: how far each node of a linked list is from its tail, in log n rounds."""

from collections.abc import Sequence

from mdmjax.anyprocess.buffers import TwoBuffers
from mdmjax.anyprocess.teachers import State


def jump(memory: State) -> State:
    """d_i += d_{next_i} and next_i := next_{next_i}, for all i at once, on (next_0 .. next_{n-1}, d_0 .. d_{n-1})."""
    count = len(memory) // 2
    following, rank = memory[:count], memory[count:]
    return tuple(following[j] for j in following) + tuple(d + rank[j] for d, j in zip(rank, following, strict=True))


def list_ranking(count: int) -> TwoBuffers:
    """The teacher for lists of n = `count` nodes: ceil(log2(n - 1)) rounds of four steps for n >= 3, none for less.

    Its tokens are the numbers 0..n-1, it starts at `.start(list_memory(successors))`, and the second half of its answer
    is the distance of each node from the tail. The memory is used again in each round; a model that never takes back a
    token needs new cells for each.
    """
    return TwoBuffers(tuple(map(str, range(count))), jump)


def list_memory(successors: Sequence[int]) -> State:
    """next and d before the first round: d = 0 at the tail, which is its own successor, and 1 elsewhere.

    ValueError for successors that are not those of one list of all the nodes.
    """
    nodes, walk = range(len(successors)), []
    i = min(set(nodes) - set(successors), default=0)  # the head, which is nobody's successor
    while i in nodes and i not in walk:
        walk.append(i)
        i = successors[i]
    if len(walk) < len(nodes) or i not in walk[-1:]:
        raise ValueError(f"successors {list(successors)}: must link 0..{len(nodes) - 1} up to a tail, its own")
    return (*successors, *(int(i != j) for i, j in enumerate(successors)))
