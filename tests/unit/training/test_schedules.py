"""Learning rate factors over a run."""

from __future__ import annotations

import pytest

from medt.training.schedules import Constant, Cosine, Polynomial

STEPS = 100


def test_constant_is_one() -> None:
    assert [Constant()(step, STEPS) for step in range(STEPS)] == [1.0] * STEPS


@pytest.mark.parametrize("schedule", [Constant(0.1), Cosine(0.1), Polynomial(0.1)])
def test_warm_up_rises_linearly_to_one(schedule: Constant | Cosine | Polynomial) -> None:
    factors = [schedule(step, STEPS) for step in range(11)]
    assert factors == pytest.approx([(step + 1) / 11 for step in range(11)])


def test_cosine_falls_to_its_final_factor() -> None:
    schedule = Cosine(warmup=0.0, final=0.1)
    assert schedule(0, STEPS) == pytest.approx(1.0)
    assert schedule(STEPS // 2, STEPS) == pytest.approx(0.55)
    assert schedule(STEPS, STEPS) == pytest.approx(0.1)


def test_polynomial_has_its_power() -> None:
    schedule = Polynomial(warmup=0.0, power=2.0)
    assert schedule(STEPS // 2, STEPS) == pytest.approx(0.25)
    assert schedule(STEPS, STEPS) == pytest.approx(0.0)


@pytest.mark.parametrize("schedule", [Cosine(), Polynomial()])
def test_after_the_warm_up_it_never_rises(schedule: Cosine | Polynomial) -> None:
    factors = [schedule(step, STEPS) for step in range(5, STEPS)]
    assert factors == sorted(factors, reverse=True)
