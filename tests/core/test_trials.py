from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilient.core.permit import Trial
from resilient.core.trials import Round


def begin(trials: Round, expires: float) -> Trial:
    trial = Trial(1, expires, None)
    trials.out.append(trial)
    return trial


def test_places_and_the_end_of_a_round() -> None:
    trials = Round(2)
    assert trials.make_place(0.0) and not trials.full and trials.wait(0.0) == 0.0
    first, second = begin(trials, 5.0), begin(trials, 7.0)
    assert trials.full and not trials.make_place(4.99)
    assert trials.wait(3.0) == 2.0
    assert trials.end(first) and not trials.end(first)
    trials.failures += 1
    assert trials.full is True and trials.complete is False  # a trial that has ended keeps its place
    assert trials.end(second)
    trials.successes += 1
    assert trials.complete


def test_a_lost_trial_makes_one_place_and_the_others_keep_theirs() -> None:
    trials = Round(3)
    lost = [begin(trials, 5.0) for _ in range(3)]
    assert trials.make_place(5.0)
    assert trials.out == lost[1:]
    begin(trials, 20.0)
    assert trials.make_place(6.0)
    assert trials.out[0] is lost[2]
    assert trials.end(lost[2])


def test_a_lost_trial_whose_answer_had_begun_has_succeeded() -> None:
    trials = Round(2)
    for _ in range(2):
        begin(trials, 5.0).answered = True
    assert not trials.make_place(5.0)
    assert trials.complete and trials.successes == 2


def test_nothing_to_wait_for_once_all_have_ended() -> None:
    trials = Round(1)
    trials.successes = 1
    assert trials.full and trials.wait(3.0) == 0.0


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["ask", "ask", "good", "bad", "ignored", "answer"]), st.integers(0, 8)), max_size=60),
)
def test_a_round_is_never_larger_than_its_sample(size: int, steps: list[tuple[str, int]]) -> None:
    """At most one sample: whatever is lost, ignored or answered, trials that are out and verdicts never exceed it."""
    trials, now, lost = Round(size), 0.0, 0
    for act, pause in steps:
        now += pause
        if act == "ask":
            before = trials.out[:]
            if trials.make_place(now) and not trials.complete:
                lost += len(before) - len(trials.out)
                begin(trials, now + 10)
        elif trials.out and act == "answer":
            trials.out[0].answered = True
        elif trials.out:
            assert trials.end(trials.out[0])
            trials.successes += act == "good"
            trials.failures += act == "bad"
        assert trials.successes + trials.failures + len(trials.out) <= size


def test_a_full_round_has_no_place() -> None:
    trials = Round(1)
    trials.out.append(Trial(1, 10.0, None))
    assert trials.make_place(9.9) is False
