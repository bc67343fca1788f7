import pytest

from dd_jax.benchmarks.accelerator import report


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("images_per_second", 1234.5, "1234 images/s"),
        ("compile_seconds", 12.34, "compile 12.3 s"),
        ("peak_on_device_bytes", 3 * 2**29, "peak on device 1.50 GiB"),
        ("memory_bytes", 3 * 2**19, "memory 2 MiB"),
        ("waiting_for_batches_share", 0.0625, "waiting for batches 6.2%"),
        ("ratio", 1.23456, "ratio 1.23"),
        ("same_bits", True, "same bits True"),
        ("note", "out of memory", "out of memory"),
        ("failures", ["a", "b", "c", "d", "e", "f", "g"], "failures: a; b; c; d; e; and 2 more"),
    ],
)
def test_unit_is_the_end_of_the_name(name, value, text):
    assert report.figure(name, value) == text


def test_table_has_every_row_and_every_state_but_done():
    found = {
        "command": "the command", "config": "dynamic_depth, 64x96", "date": "today", "commit": "1234567",
        "measurements": {
            "device": {"state": "done", "rows": [{"what": "devices", "kind": "A|B"}, {"what": "host", "cores": 2}]},
            "step": {"state": "failed: broken", "rows": [{"what": "batch 1", "run_seconds": 0.25}]},
            "peer": {"state": "waiting", "rows": []},
        },
    }  # fmt: skip
    assert report.markdown(found).splitlines() == [
        "`the command`, dynamic_depth, 64x96, today, commit `1234567`:",
        "",
        "| measurement | of | result |",
        "|---|---|---|",
        "| device | devices | kind A/B |",
        "|  | host | cores 2 |",
        "| step | batch 1 | run 0.25 s |",
        "|  |  | failed: broken |",
        "| peer |  | waiting |",
    ]
