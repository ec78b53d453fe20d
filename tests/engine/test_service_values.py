"""The pure parts of the service: when to restart, what healthy means, who lives, what the build is called."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_service import ask

from engine.build import engine_build
from engine.health import EngineStats, has_progressed
from engine.request import StepEvent
from engine.request_book import RequestBook
from engine.stats import CoreCounts, CoreStats
from engine.supervision import RestartPolicy


def test_delay_doubles_up_to_its_cap_and_then_gives_up():
    """Each death without progress makes the next start wait longer, the last one ends it."""
    policy = RestartPolicy(first_delay_s=0.5, max_delay_s=3.0, max_deaths_in_row=6)
    assert [policy.delay_s(deaths) for deaths in range(1, 8)] == [0.5, 1.0, 2.0, 3.0, 3.0, None, None]


def test_a_refused_start_waits_longest_and_costs_no_budget():
    """What the machine refuses is tried again at the longest delay; a budget that is spent stays spent."""
    policy = RestartPolicy(first_delay_s=0.5, max_delay_s=3.0, max_deaths_in_row=3)
    assert [policy.delay_s(deaths, was_refused=True) for deaths in range(1, 5)] == [3.0, 3.0, None, None]


@pytest.mark.parametrize(
    ("served_for_s", "finished_requests", "expected"),
    [(1.0, 0, 4), (1.0, 1, 1), (60.0, 0, 1), (59.9, 0, 4)],
    ids=["nothing", "a request ran to its end", "it lived", "nearly"],
)
def test_progress_makes_the_count_begin_again(served_for_s, finished_requests, expected):
    """A death after progress is the first of a new row."""
    policy = RestartPolicy(settled_after_s=60.0)
    assert policy.deaths_in_row(3, served_for_s=served_for_s, finished_requests=finished_requests) == expected


@pytest.mark.parametrize(
    ("busy_since", "last_step_at", "expected"),
    [
        pytest.param(None, None, True, id="never used"),
        pytest.param(None, 0.0, True, id="idle for long"),
        pytest.param(95.0, None, True, id="new work"),
        pytest.param(80.0, None, False, id="no first step"),
        pytest.param(0.0, 95.0, True, id="steps"),
        pytest.param(0.0, 80.0, False, id="steps no more"),
        pytest.param(95.0, 0.0, True, id="work after a rest"),
    ],
)
def test_healthy_is_a_recent_step_or_nothing_to_do(busy_since, last_step_at, expected):
    """At time 100 with a limit of 10 seconds."""
    assert has_progressed(now=100.0, busy_since=busy_since, last_step_at=last_step_at, stall_limit_s=10.0) is expected


def totals(book: RequestBook) -> EngineStats:
    """What the service would tell of this book."""
    return book.tally.stats(restarts=0, num_live=book.num_live, loaded=None)


ids = st.sampled_from("abcd")
deeds = st.one_of(
    st.tuples(st.sampled_from(["open", "start", "token", "finish", "cancel", "end"]), ids),
    st.tuples(st.sampled_from(["die", "hand over", "give up"]), st.just("")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(deeds, max_size=40))
def test_every_request_ends_exactly_once(deeds):
    """Whatever happens in whatever order, a request has one event with finish, its last; the counts always hold."""
    clock = iter(range(10**6))
    book = RequestBook(lambda: float(next(clock)))
    handles = []
    for deed, request_id in deeds:
        match deed:
            case "open" if not book.is_live(request_id):
                handles.append(book.open(ask(request_id), lambda: None))
            case "start":
                book.start(request_id)
            case "token":
                book.deliver(StepEvent(request_id, (1,)))
            case "finish":
                book.deliver(StepEvent(request_id, (1,), finish="length"))
            case "cancel":
                book.cancel(request_id)
            case "end":
                book.end(request_id, "error", "refused")
            case "die":
                book.bury_process()
                assert book.num_running == 0
            case "hand over":
                assert [request.request_id for request in book.hand_over()] == list(book.live_ids())
            case "give up":
                book.end_all("error", "engine_failed")
        num_live = len(book.live_ids())
        assert book.num_running + book.num_waiting == num_live
        assert book.num_running >= 0
        assert book.drained.is_set() == (num_live == 0) == (book.busy_since is None)
    book.end_all("cancelled")
    for handle in handles:
        finishes = [event.finish is not None for event in handle._unread]
        assert finishes == [False] * (len(finishes) - 1) + [True]
    assert sum(count for _, count in totals(book).num_finished) == len(handles)


def test_tally_counts_every_prompt_once():
    """Prompt and cached tokens come with the first event of a request and with no other."""
    book = RequestBook(lambda: 0.0)
    book.open(ask("r", 1, 2, 3), lambda: None)
    book.deliver(StepEvent("r", (4,), num_cached_tokens=2, queue_time_s=0.0))
    book.deliver(StepEvent("r", (5,), finish="stop", num_preemptions=3))
    stats = totals(book)
    assert (stats.num_prompt_tokens, stats.num_cached_tokens, stats.num_output_tokens) == (3, 2, 2)
    assert stats.num_finished == (("stop", 1),)


@pytest.mark.parametrize(("num_cached", "expected"), [(0, 0), (2, 0), (3, 1)])
def test_the_last_token_of_a_cached_prompt_counts_as_recomputed(num_cached: int, expected: int):
    """Only where the cache held all but the last token, which is computed again for its logits."""
    book = RequestBook(lambda: 0.0)
    book.open(ask("r", 1, 2, 3, 4), lambda: None)
    book.deliver(StepEvent("r", (4,), num_cached_tokens=num_cached))
    book.deliver(StepEvent("r", (5,), finish="stop"))
    assert totals(book).num_last_tokens_recomputed == expected


def test_scores_that_are_not_finite_are_counted_apart_from_other_errors():
    """A model that goes wrong shows; a request that does not fit is no sign of that."""
    book = RequestBook(lambda: 0.0)
    for request_id, error in (("a", "nan_logits"), ("b", "out_of_kv_memory")):
        book.open(ask(request_id), lambda: None)
        book.end(request_id, "error", error)
    assert (totals(book).num_nan_logits, totals(book).num_finished) == (1, (("error", 2),))


def test_counters_of_dead_processes_are_kept():
    """Every counter adds up over processes; gauges do not."""
    book = RequestBook(lambda: 0.0)
    for num_steps in (5, 7):
        book.tally.take_step(
            CoreStats(
                *(2, 0, 1, 1, 0),
                num_steps=num_steps,
                prefix_cache_query_tokens=10,
                prefix_cache_hit_tokens=3,
                recomputed_tokens=4,
                num_preemptions=2,
            )
        )
        book.tally.bury_process()
    book.tally.bury_process()  # a process that died before its first step adds nothing
    assert totals(book).num_running == 0
    book.tally.take_step(CoreStats(0, 0, 1, 1, 0, num_steps=1))
    assert totals(book).counts == CoreCounts(13, 20, 6, 8, 4)


def test_a_step_that_is_told_in_several_frames_counts_once():
    """Steps by the tokens they computed: one that computed nothing is left out, the next process counts on."""
    book = RequestBook(lambda: 0.0)
    for num_steps, num_tokens in ((1, 9), (1, 9), (2, 1), (3, 0), (4, 1)):
        book.tally.take_step(CoreStats(0, 0, 1, 1, 0, num_steps=num_steps, last_iteration_tokens=num_tokens))
    book.tally.bury_process()
    book.tally.take_step(CoreStats(0, 0, 1, 1, 0, num_steps=1, last_iteration_tokens=9))
    assert totals(book).steps_by_tokens == ((1, 2), (9, 2))


def test_whoever_lives_and_does_not_run_waits():
    """Queued, preempted, or kept while there is no process: the gauge sees them at once."""
    book = RequestBook(lambda: 0.0)
    for request_id in "abc":
        book.open(ask(request_id), lambda: None)
    assert (totals(book).num_running, totals(book).num_waiting) == (0, 3)
    book.tally.take_step(CoreStats(1, 1, 1, 1, 0, num_steps=1))
    assert (totals(book).num_running, totals(book).num_waiting) == (1, 2)
    book.bury_process()
    assert (totals(book).num_running, totals(book).num_waiting) == (0, 3)


def test_build_changes_with_any_byte_or_name_of_the_source(tmp_path):
    """Two engines with one digest are one engine; what is not source does not count."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "core.py").write_text("a = 1\n")
    (tmp_path / "kernels" / "gemm.c").write_text("int a;\n")
    digests = [engine_build(tmp_path)]
    (tmp_path / "notes.txt").write_text("no source")
    assert engine_build(tmp_path) == digests[0]
    (tmp_path / "kernels" / "gemm.c").write_text("int b;\n")
    digests.append(engine_build(tmp_path))
    (tmp_path / "core.py").rename(tmp_path / "kern.py")
    digests.append(engine_build(tmp_path))
    assert len(set(digests)) == 3
    assert engine_build() != engine_build(tmp_path)
