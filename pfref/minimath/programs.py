"""Straight-line programs of binary operations on whole numbers: what a solution is."""

Operand = int | str  # a number, or "r3" for the result of operation 3
Operation = tuple[str, Operand, Operand]  # symbol, left, right
Program = list[Operation]


def apply(symbol: str, left: int, right: int) -> int:
    """One operation on whole numbers; division rounds down, and x / 0 is 0."""
    if symbol == "+":
        return left + right
    if symbol == "-":
        return left - right
    if symbol == "*":
        return left * right
    if right == 0:
        return 0
    return left // right if symbol == "/" else left % right


def evaluate(program: Program) -> list[int]:
    """The result of every operation, in order."""
    results: list[int] = []
    for symbol, left, right in program:
        results.append(apply(symbol, value_of(left, results), value_of(right, results)))
    return results


def value_of(operand: Operand, results: list[int]) -> int:
    return results[int(operand[1:])] if isinstance(operand, str) else operand


def write_step(symbol: str, left: int, right: int, result: int, last: bool) -> str:
    """One step as text; the last one also boxes the answer."""
    operator = " mod " if symbol == "mod" else symbol
    return f"{left}{operator}{right}={result}" + (
        f", so \\boxed{{{result}}}" if last else ""
    )


def write_steps(program: Program, results: list[int]) -> list[str]:
    return [
        write_step(
            symbol,
            value_of(left, results),
            value_of(right, results),
            results[k],
            k == len(program) - 1,
        )
        for k, (symbol, left, right) in enumerate(program)
    ]
