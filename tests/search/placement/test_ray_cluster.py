"""What Ray says of its nodes, in our words."""

from __future__ import annotations

from ray.exceptions import OutOfMemoryError

from carray.search.placement.ray_cluster import memory_error

SAID = """9 worker(s) were killed due to the node running low on memory. Memory on the node \
(IP: 192.0.2.2, ID: 3942c4f8f7b3) was 23.27GB used / 23.54GB limit (0.988669)
OOM kill reason: Memory usage 24118616064B exceeded threshold of 24012259328B
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
13180\t19.02\t/usr/bin/python render.py --all ...
10985\t0.59\tray::RayTrainWorker
"""


def test_a_node_out_of_memory_is_said_with_what_holds_most_of_it() -> None:
    tune_error = RuntimeError(f"Caught unexpected exception: {SAID}")
    tune_error.__cause__ = OutOfMemoryError(SAID)
    assert str(memory_error(tune_error)) == (
        "node 192.0.2.2 ran out of memory (23.27 of 23.54 GiB used), most of it by "
        "'/usr/bin/python render.py --all ...' (19.02 GiB), and Ray ended the study's processes "
        "there; free some, or run fewer trials at once (--concurrent)"
    )
    assert memory_error(RuntimeError("another one")) is None


def test_it_is_said_without_numbers_where_ray_words_it_otherwise() -> None:
    said = str(memory_error(OutOfMemoryError("low on memory")))
    assert said.startswith("a node ran out of memory, and Ray ended")
