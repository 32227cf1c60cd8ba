"""Any order, written from left to right."""

import numpy as np

from mdmjax.anyprocess import PairLog, trajectory


def test_the_log_says_what_the_row_holds_at_each_step():
    """200 random orders of eight positions; the tokens depend on what is there already."""
    length, vocab = 8, 3
    for seed in range(200):
        rng = np.random.default_rng(seed)
        order, salt = rng.permutation(length).tolist(), int(rng.integers(1000))

        def policy(row):
            filled = length - row.count(vocab)
            return order[filled], (hash(row) + salt) % vocab

        row, rows = (vocab,) * length, []
        for _ in range(length):  # the any-order model, in place
            rows.append(row)
            position, token = policy(row)
            row = (*row[:position], token, *row[position + 1 :])

        teacher = PairLog(policy, length, vocab)
        steps, final = trajectory(teacher, (length * vocab,) * length, length)
        assert [teacher.answer(state) for state, _ in steps] == rows and teacher.answer(final) == row
        masks = [state.index(len(teacher.names)) for state, _ in steps]
        assert masks == list(range(length))  # only ever the leftmost
        assert [divmod(pair, vocab)[0] for pair in final] == order
