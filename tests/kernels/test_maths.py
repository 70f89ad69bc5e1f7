"""The losses of kernels/README.md's table, written with the primitive, equal softmax cross-entropies in fp64."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.kernels import queue_softmax
from tests.support.naive import ce, unit_rows

STUDENT, TEACHER = 0.2, 0.07
Q, T_ROWS = unit_rows(9, 24, 0), unit_rows(9, 24, 1)
TEACHER_QUEUE, STUDENT_QUEUE = unit_rows(57, 24, 2), unit_rows(57, 24, 3)


def primitive(q: Tensor, queue: Tensor, temperature: float, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return queue_softmax(q, queue, temperature, impl="reference", values=values)


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """H(softmax(teacher), softmax(student)) (R) of logits (R, K)."""
    return -(torch.softmax(teacher, 1) * torch.log_softmax(student, 1)).sum(1)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) (R)."""
    return F.kl_div(torch.log_softmax(student, 1), torch.softmax(teacher, 1), reduction="none").sum(1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


def check(ours: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12)


def slope(loss: Tensor, q: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), q)[0]


def test_infonce() -> None:
    q = Q.clone().requires_grad_()
    lse, mean = primitive(Q, TEACHER_QUEUE, STUDENT)
    s = dot(Q, T_ROWS) / STUDENT
    exact = ce(q, T_ROWS, TEACHER_QUEUE, STUDENT)
    check(-F.logsigmoid(s - lse), exact.detach())
    check(torch.sigmoid(lse - s)[:, None] * (mean - T_ROWS) / STUDENT, slope(exact, q))


def test_compress_with_one_queue() -> None:
    q = Q.clone().requires_grad_()
    (lse_s, mean_s), (lse_t, mean_t) = primitive(Q, TEACHER_QUEUE, STUDENT), primitive(T_ROWS, TEACHER_QUEUE, TEACHER)
    student, teacher = q @ TEACHER_QUEUE.T / STUDENT, T_ROWS @ TEACHER_QUEUE.T / TEACHER
    ours = lse_s - dot(Q, mean_t) / STUDENT
    check(ours, cross_entropy(student, teacher).detach())
    check(ours + dot(T_ROWS, mean_t) / TEACHER - lse_t, divergence(student, teacher).detach())
    check((mean_s - mean_t) / STUDENT, slope(divergence(student, teacher), q))


def test_compress_with_two_queues() -> None:
    q = Q.clone().requires_grad_()
    lse_s, mean_s = primitive(Q, STUDENT_QUEUE, STUDENT)
    lse_t, mean_ts = primitive(T_ROWS, TEACHER_QUEUE, TEACHER, STUDENT_QUEUE)
    _, mean_t = primitive(T_ROWS, TEACHER_QUEUE, TEACHER)
    student, teacher = q @ STUDENT_QUEUE.T / STUDENT, T_ROWS @ TEACHER_QUEUE.T / TEACHER
    ours = lse_s - dot(Q, mean_ts) / STUDENT
    check(ours, cross_entropy(student, teacher).detach())
    check(ours + dot(T_ROWS, mean_t) / TEACHER - lse_t, divergence(student, teacher).detach())
    check((mean_s - mean_ts) / STUDENT, slope(divergence(student, teacher), q))


def seed_parts(temperature: float) -> tuple[Tensor, ...]:
    """loss and gradient from the primitive; temperature: the teacher's."""
    (lse_s, mean_s), (lse_t, mean_t) = (
        primitive(Q, TEACHER_QUEUE, STUDENT),
        primitive(T_ROWS, TEACHER_QUEUE, temperature),
    )
    s, w = dot(Q, T_ROWS) / STUDENT, torch.sigmoid(1 / temperature - lse_t)
    loss = torch.logaddexp(lse_s, s) - w * s - (1 - w) * dot(Q, mean_t) / STUDENT
    p, w = torch.sigmoid(s - lse_s)[:, None], w[:, None]
    return loss, ((1 - p) * mean_s - (1 - w) * mean_t + (p - w) * T_ROWS) / STUDENT


def test_seed() -> None:
    q = Q.clone().requires_grad_()
    keys = torch.cat([T_ROWS[:, None], TEACHER_QUEUE.expand(len(Q), -1, -1)], 1)
    student, teacher = (torch.einsum("rc,rkc->rk", x, keys) for x in (q, T_ROWS))
    exact = cross_entropy(student / STUDENT, teacher / TEACHER)
    loss, gradient = seed_parts(TEACHER)
    check(loss, exact.detach())
    check(gradient, slope(exact, q))


def test_seed_with_a_cold_teacher_is_infonce() -> None:
    loss, _ = seed_parts(1e-3)
    check(loss, ce(Q, T_ROWS, TEACHER_QUEUE, STUDENT))
    warm, _ = seed_parts(TEACHER)
    assert (warm - loss).abs().max() > 1e-3
