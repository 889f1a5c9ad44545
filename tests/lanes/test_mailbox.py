"""The mailbox, without Ray: who gets which order, and what a dead rank changes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from carray.config import TrialConfig
from carray.lanes.mailbox import MAX_ATTEMPTS, Mailbox
from carray.lanes.messages import Answer, LaneOrder
from carray.training.epoch_order import EpochOrder


def order(trial: str, epoch: int = 1, kind: str = "epoch") -> LaneOrder:
    job = EpochOrder(trial=trial, folder="f", data="d", config=TrialConfig(), epoch=epoch)
    return LaneOrder(kind, job)  # type: ignore[arg-type]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=10))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_an_order_is_taken_answered_and_returned_to_its_caller() -> None:
    async def test() -> None:
        box = Mailbox(1)
        call = asyncio.create_task(box.call(order("s/0")))
        sequence, taken = await box.take(0, "a", 0)
        assert taken.trial == "s/0"
        await box.answer(0, sequence, Answer(reason="told"))
        answer = await call
        assert (answer.reason, answer.lane) == ("told", 0)

    run(test())


def test_a_lane_that_leaves_for_want_of_memory_hands_its_order_on_once() -> None:
    async def test() -> None:
        box = Mailbox(3)
        call = asyncio.create_task(box.call(order("s/0")))
        sequence, _ = await box.take(0, "a", 0)
        following = asyncio.create_task(box.call(order("s/0", epoch=2)))
        await settle()
        assert not await box.reassign(0, sequence + 1, "of an order that is no more")
        assert await box.reassign(0, sequence, "out of memory")
        assert await box.departure_reason(0) == "out of memory"
        assert not await box.wait_needed(0)
        second, taken = await box.take(1, "b", 0)
        assert (taken.trial, taken.job.epoch) == ("s/0", 1)  # type: ignore[union-attr]
        assert not await box.reassign(1, second, "the trial itself is too large")
        assert await box.departure_reason(1) == ""
        await box.answer(1, second, Answer(reason="told"))
        assert (await call).lane == 1
        third, taken = await box.take(1, "b", second)
        assert taken.job.epoch == 2  # type: ignore[union-attr]
        assert await box.reassign(1, third, "out of memory")
        fourth, taken = await box.take(2, "c", 0)
        assert not await box.reassign(2, fourth, "the last one stays")
        await box.answer(2, fourth, Answer("infeasible", "too large"))
        assert (await following).state == "infeasible"

    run(test())


def test_a_lane_whose_node_cannot_train_hands_its_order_on_until_the_last() -> None:
    async def test() -> None:
        box = Mailbox(3)
        call = asyncio.create_task(box.call(order("s/0")))
        for lane in (0, 1):
            await box.arrive(lane, "abc"[lane], f"node {lane}")
            sequence, taken = await box.take(lane, "abc"[lane], 0)
            assert taken.trial == "s/0"
            assert not await box.hand_over(lane, sequence + 1, "an order that is no more")
            assert await box.hand_over(lane, sequence, "no data")
            assert await box.hand_over(lane, sequence, "another rank says the same")
            for incarnation in ("abc"[lane], "a new one"):
                _, sent = await box.take(lane, incarnation, sequence)
                assert sent.kind == "exit"
            assert not await box.wait_needed(lane)
        sequence, _ = await box.take(2, "c", 0)
        assert not await box.hand_over(2, sequence, "the last one stays")
        await box.answer(2, sequence, Answer(reason="told"))
        assert (await call).lane == 2
        assert await box.unfit_nodes() == [(["node 0"], "no data"), (["node 1"], "no data")]

    run(test())


def test_a_lane_on_a_drained_node_ends_its_order_and_takes_no_other() -> None:
    async def test() -> None:
        box = Mailbox(3)
        for lane in range(3):
            await box.arrive(lane, "abc"[lane], f"node {lane % 2}")
        first, second = (asyncio.create_task(box.call(order("s/0", epoch))) for epoch in (1, 2))
        sequence, _ = await box.take(0, "a", 0)
        idle = asyncio.create_task(box.take(2, "c", 0))
        await settle()
        assert await box.drain(["node 0"], "drained") == [0, 2]
        assert await box.drain(["node 0"], "drained") == []
        assert (await idle)[1].kind == "exit"
        await box.answer(0, sequence, Answer(reason="in time"))
        assert (await first).reason == "in time"
        assert (await box.take(0, "a", sequence))[1].kind == "exit"
        sequence, taken = await box.take(1, "b", 0)
        assert taken.job.epoch == 2  # type: ignore[union-attr]
        await box.answer(1, sequence, Answer())
        assert (await second).lane == 1

    run(test())


def test_a_lane_that_leaves_before_its_first_order_gets_none() -> None:
    async def test() -> None:
        box = Mailbox(2)
        call = asyncio.create_task(box.call(order("s/0")))
        await box.depart(0, "no GPU")
        _, sent = await box.take(0, "a", 0)
        assert sent.kind == "exit"
        assert await box.departure_reason(0) == "no GPU"
        sequence, _ = await box.take(1, "b", 0)
        await box.answer(1, sequence, Answer())
        assert (await call).lane == 1

    run(test())


def test_a_death_does_not_count_where_the_node_was_lost_whichever_is_known_first() -> None:
    async def test() -> None:
        box = Mailbox(1)
        call = asyncio.create_task(box.call(order("s/0")))
        for number in range(2 * MAX_ATTEMPTS):
            await box.arrive(0, f"group {number}", f"node {number}")
            sequence, _ = await box.take(0, f"group {number}", 0)
            if number:
                await box.release_lost([f"node {number - 1}"])  # where the group before it was
        await box.release_lost([f"node {number}"])
        assert not call.done()
        sequence, _ = await box.take(0, "the last", 0)
        await box.answer(0, sequence, Answer(reason="told"))
        assert (await call).reason == "told"

    run(test())


def test_what_a_lane_on_a_lost_node_had_goes_to_a_free_lane_and_counts_as_no_death() -> None:
    async def test() -> None:
        box = Mailbox(2)
        call = asyncio.create_task(box.call(order("s/0")))
        following = asyncio.create_task(box.call(order("s/0", epoch=2)))
        await settle()
        for node, other in (("a", "b"), ("b", "a")):
            lane = 0 if node == "a" else 1
            await box.arrive(lane, f"of {node}", node)
            sequence, taken = await box.take(lane, f"of {node}", 0)
            assert (taken.trial, taken.job.epoch) == ("s/0", 1)  # type: ignore[union-attr]
            assert await box.release_lost([other, "c"]) == []
            assert await box.release_lost([node]) == [lane]
            await box.answer(lane, sequence, Answer(reason="from the lost node"))
            assert (await box.lives())[lane] == 0
        assert not call.done()
        await box.arrive(0, "back", "d")  # a lane may come back on another node
        sequence, taken = await box.take(0, "back", sequence)
        assert taken.job.epoch == 1  # type: ignore[union-attr]
        await box.answer(0, sequence, Answer(reason="told"))
        assert (await call).reason == "told"
        sequence, taken = await box.take(0, "back", sequence)
        assert taken.job.epoch == 2  # type: ignore[union-attr]
        await box.answer(0, sequence, Answer())
        await following

    run(test())


def test_a_trial_stays_on_its_lane_and_a_new_one_waits_for_a_free_lane() -> None:
    async def test() -> None:
        box = Mailbox(2)
        tasks = [asyncio.create_task(box.call(order(t))) for t in ("s/0", "s/1")]
        await settle()
        first, taken0 = await box.take(0, "a", 0)
        second, taken1 = await box.take(1, "b", 0)
        assert (taken0.trial, taken1.trial) == ("s/0", "s/1")
        await box.answer(0, first, Answer())
        newcomer = asyncio.create_task(box.call(order("s/2")))
        following = asyncio.create_task(box.call(order("s/0", epoch=2)))
        await settle()
        # lane 0 holds s/0: the newcomer came first, but goes to a lane that holds nobody
        first, taken0 = await box.take(0, "a", first)
        assert taken0.trial == "s/0"
        await box.answer(1, second, Answer())
        finish = asyncio.create_task(box.call(order("s/1", kind="finish")))
        await settle()
        second, taken1 = await box.take(1, "b", second)
        assert taken1.kind == "finish"
        await box.answer(1, second, Answer())
        second, taken1 = await box.take(1, "b", second)
        assert taken1.trial == "s/2"
        for lane, sequence in ((0, first), (1, second)):
            await box.answer(lane, sequence, Answer())
        await asyncio.gather(*tasks, newcomer, following, finish)

    run(test())


def test_every_rank_of_a_lane_takes_the_same_order_once() -> None:
    async def test() -> None:
        box = Mailbox(1)
        call = asyncio.create_task(box.call(order("s/0")))
        sequence, taken = await box.take(0, "a", 0)
        same, again = await box.take(0, "a", 0)
        assert (sequence, taken) == (same, again)
        waiting = asyncio.create_task(box.take(0, "a", sequence))
        await settle()
        assert not waiting.done()
        await box.answer(0, sequence, Answer())
        await call
        await box.close()
        assert (await waiting)[1].kind == "exit"

    run(test())


def test_an_unanswered_order_comes_again_after_a_restart_and_the_dead_rank_is_sent_home() -> None:
    async def test() -> None:
        box = Mailbox(1)
        call = asyncio.create_task(box.call(order("s/0")))
        sequence, _ = await box.take(0, "a", 0)
        stale = asyncio.create_task(box.take(0, "a", sequence))
        await settle()
        again, taken = await box.take(0, "b", 0)
        assert (again, taken.trial) == (sequence, "s/0")
        await settle()
        assert not stale.done() or stale.result()[1].kind == "exit"
        await box.answer(0, again, Answer())
        assert (await call).state == "running"

    run(test())


def test_an_order_that_ends_its_worker_group_twice_fails_and_the_lane_lives() -> None:
    async def test() -> None:
        box = Mailbox(1)
        bad = asyncio.create_task(box.call(order("s/0")))
        await box.take(0, "a", 0)
        for life in range(MAX_ATTEMPTS):
            await box.note(0, "RuntimeError: boom")
            taking = asyncio.create_task(box.take(0, f"life{life}", 0))
            await settle()
        answer = await bad
        assert answer.state == "failed"
        assert "boom" in answer.reason
        forget = asyncio.create_task(box.call(order("s/0", kind="forget")))
        sequence, taken = await taking
        assert taken.kind == "forget"
        await box.answer(0, sequence, Answer())
        await forget
        good = asyncio.create_task(box.call(order("s/1")))
        sequence, taken = await box.take(0, "life1", sequence)
        assert taken.trial == "s/1"
        await box.answer(0, sequence, Answer())
        await good

    run(test())


def test_a_late_answer_to_an_order_already_answered_changes_nothing() -> None:
    async def test() -> None:
        box = Mailbox(1)
        call = asyncio.create_task(box.call(order("s/0")))
        sequence, _ = await box.take(0, "a", 0)
        await box.answer(0, sequence, Answer(reason="first"))
        await box.answer(0, sequence, Answer(reason="second"))
        assert (await call).reason == "first"

    run(test())


def test_a_paused_trial_frees_its_lane_for_another() -> None:
    async def test() -> None:
        box = Mailbox(1)
        call = asyncio.create_task(box.call(order("s/0")))
        sequence, _ = await box.take(0, "a", 0)
        await box.answer(0, sequence, Answer())
        await call
        other = asyncio.create_task(box.call(order("s/1")))
        taking = asyncio.create_task(box.take(0, "a", sequence))
        await settle()
        assert not taking.done()
        await box.leave("s/0")
        sequence, taken = await taking
        assert taken.trial == "s/1"
        await box.answer(0, sequence, Answer())
        await other

    run(test())


def test_a_failed_mailbox_answers_what_waits_and_what_comes() -> None:
    async def test() -> None:
        box = Mailbox(1)
        taken = asyncio.create_task(box.call(order("s/0")))
        await box.take(0, "a", 0)
        waiting = asyncio.create_task(box.call(order("s/1")))
        await settle()
        await box.fail("interrupted")
        late = await box.call(order("s/2"))
        assert {(await taken).reason, (await waiting).reason, late.reason} == {"interrupted"}

    run(test())


def test_a_lane_that_retires_between_two_trials_comes_back_when_it_is_wanted() -> None:
    async def test() -> None:
        box = Mailbox(1)
        call = asyncio.create_task(box.call(order("s/0", kind="forget")))
        sequence, _ = await box.take(0, "a", 0)
        await box.answer(0, sequence, Answer())
        await call
        for _rank in range(2):
            await box.retire(0, "grew")
        wanted = asyncio.create_task(box.wait_needed(0))
        await settle()
        assert not wanted.done()
        assert await box.lives() == [0]
        following = asyncio.create_task(box.call(order("s/1")))
        assert await wanted
        sequence, taken = await box.take(0, "b", 0)
        assert taken.trial == "s/1"
        assert (await box.lives(), await box.retired()) == ([1], ["lane 0 grew"])
        await box.answer(0, sequence, Answer())
        assert (await following).state == "running"
        await box.close()
        assert not await box.wait_needed(0)

    run(test())
