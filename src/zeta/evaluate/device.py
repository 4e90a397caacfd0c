"""`check_device`: where stacks train, found out before anything is trained."""

from zeta._errors import UserError, one_line

#: Where stacks train unless told otherwise.
CPU = "cpu"


def check_device(name: str) -> None:
    """Refuse a device that is not here, or that holds no numbers.

    Args:
        name: as PyTorch has it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.

    Raises:
        UserError: one line that says why.

    Example:
        >>> from zeta.evaluate.device import check_device
        >>> check_device("cpu")
    """
    if name == CPU:
        return
    import torch

    try:
        torch.ones((), device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name!r} cannot be used here: {one_line(error)}") from error
