"""The quick part of the fault programme; ``make faults`` runs the whole of it."""

from __future__ import annotations

import signal

import pytest
from faults import disk, fuzz, hostile, images, integrity, kills, numbers, steps, writers


def test_a_run_survives_a_failure_or_kill_at_every_step_of_writing(tmp_path):
    for count in steps.run_steps(tmp_path, stride=41):
        count.require(8)


def test_a_timing_survives_a_failure_or_kill_at_every_step_of_writing(tmp_path):
    for count in steps.timing_steps(tmp_path):
        count.require(10)


def test_flipped_bits_truncations_and_swapped_files_are_detected(tmp_path):
    found = integrity.artifacts(tmp_path / "artifacts")
    integrity.flips(found, bits=300).require(300)
    integrity.truncations(found, stride=29).require(100)
    integrity.swaps(tmp_path / "swaps").require(20)


def test_a_full_disk_is_reported_in_one_line_and_loses_nothing(tmp_path):
    disk.file_size_limits(tmp_path / "limits", stride=256).require(6)
    count = disk.full_disks(tmp_path / "disks", stride=9)
    if not count.tried:
        pytest.skip(str(count.notes["not tried"]))
    count.require(6)


def test_processes_share_a_study(tmp_path):
    writers.together(tmp_path / "together", runs=3).require(3)
    writers.one_killed(tmp_path / "killed", runs=2).require(2)


@pytest.mark.parametrize("programme", hostile.PROGRAMMES)
def test_hostile_files_are_refused(tmp_path, programme):
    programme(tmp_path / "hostile").require(10)


def test_a_command_repeated_after_a_kill_ends_in_the_same_bytes(tmp_path):
    kills.stopped(tmp_path, signal.SIGKILL, times=2).require(2)


def test_numbers_that_break_arithmetic_have_a_defined_outcome(tmp_path):
    for count in numbers.spoiled_steps(tmp_path, stride=8):
        count.require(1)


def test_images_that_claim_to_be_large_are_refused(tmp_path):
    images.large_images(tmp_path, sides=images.SIDES[-1:]).require(20)


def test_random_command_lines_and_configurations_are_answered_in_one_line(tmp_path):
    fuzz.lines_in_process(tmp_path, examples=60).require(60)
    fuzz.configurations_in_process(tmp_path, examples=60).require(60)
    fuzz.real_commands(tmp_path, examples=1).require(1)
