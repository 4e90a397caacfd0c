"""Which code multiplies by what an attribute computes, read from its source."""

import functools

import pytest
from torch import nn

from zeta.integrations.gate_calls import why_no_product


class Direct(nn.Module):
    def forward(self, x):
        return self.down(self.act(self.gate(x)) * self.up(x))


class ValueFirst(nn.Module):
    def forward(self, x):
        gate, up = self.both(x).chunk(2, -1)
        return self.down(up * self.act(gate))


class Named(nn.Module):
    def forward(self, x):
        hidden = self.act(self.gate(x))
        hidden = hidden * self.up(x)
        return self.down(hidden + hidden)


class InPlace(nn.Module):
    def forward(self, x):
        hidden = self.act(self.gate(x))
        hidden *= self.up(x)
        return hidden


class Several(nn.Module):
    def forward(self, x):
        return self.helper(x).sum() + self.act(x) * x

    def helper(self, x):
        return self.drop(self.act(x) * x) * self.weight


class Nested(nn.Module):
    def forward(self, x):
        return self.act(self.act(x) * x) * x


class Inherits(Direct):
    pass


class Calls(Direct):
    def forward(self, x):
        return super().forward(x) + 1


def decorated(cls):
    former = cls.forward

    @functools.wraps(former)
    def forward(self, *args):
        return former(self, *args)

    cls.forward = forward
    cls.put_there = put_there
    return cls


def put_there(self, x):
    return self.act(x) * x


@decorated
class Decorated(nn.Module):
    def forward(self, x):
        return self.put_there(x)


GATES = [Direct, ValueFirst, Named, InPlace, Several, Nested, Inherits, Calls, Decorated]


@pytest.mark.parametrize("cls", GATES)
def test_products(cls):
    assert why_no_product(cls(), "act", nn.Module) == ""


class NoProduct(nn.Module):
    def forward(self, x):
        return self.down(self.act(self.up(x)))


class OtherAttribute(nn.Module):
    def forward(self, x):
        return self.activated(self.act(x)) * self.act_fn(x)


class Renamed(nn.Module):
    def forward(self, x):
        x = self.act(x)
        x = self.down(x)
        return x * self.scale(x)


class ByConstant(nn.Module):
    def forward(self, x):
        return 2.0 * self.act(x)


class Overrides(Direct):
    def forward(self, x):
        return self.down(self.act(self.up(x)))


WITHOUT = [NoProduct, OtherAttribute, Renamed, ByConstant, Overrides, nn.Sequential]


@pytest.mark.parametrize("cls", WITHOUT)
def test_without_a_product(cls):
    why = f"the code of {cls.__name__} multiplies nothing by it"
    assert why_no_product(cls(), "act", nn.Module) == why


class Both(nn.Module):
    def forward(self, x):
        return self.act(x) * x + self.act(x)


class NameTwice(nn.Module):
    def forward(self, x):
        hidden = self.act(x)
        return hidden * x, hidden.mean()


class HandsOn(nn.Module):
    def forward(self, x):
        return self.act(x) * fused(x, self.act)


class Adds(nn.Module):
    def forward(self, x):
        hidden = self.act(x)
        hidden += x
        return self.act(x) * hidden


class WritesOverTheValue(nn.Module):
    def forward(self, x):
        x = x + self.up(self.act(x) * x)
        x *= self.act(x)
        return x


class InTwoMethods(Direct):
    def other(self, x):
        return self.act(x)


def fused(x, act):
    return act(x)


BOTH = [Both, NameTwice, HandsOn, Adds, WritesOverTheValue, InTwoMethods]


@pytest.mark.parametrize("cls", BOTH)
def test_also_used_otherwise(cls):
    why = f"the code of {cls.__name__} also uses it where nothing is multiplied"
    assert why_no_product(cls(), "act", nn.Module) == why


def test_a_forward_of_the_instance_counts_for_the_class():
    module = Direct()
    module.forward = NoProduct.forward.__get__(module)
    assert "multiplies nothing" in why_no_product(module, "act", nn.Module)
    module = NoProduct()
    module.forward = functools.partial(Direct.forward, module)
    assert "multiplies nothing" in why_no_product(module, "act", nn.Module)
    functools.update_wrapper(module.forward, Direct().forward)  # as accelerate does
    assert why_no_product(module, "act", nn.Module) == ""


def test_code_without_a_source():
    namespace = {"nn": nn}
    exec("class Made(nn.Module):\n    def forward(self, x): return self.act(x) * x", namespace)
    module = namespace["Made"]()
    assert why_no_product(module, "act", nn.Module) == "the code of Made cannot be read"


def test_code_without_a_source_that_has_no_part_in_it():
    class Extended(Direct):
        other = eval("lambda self, x: self.up(x)", {})

    assert why_no_product(Extended(), "act", nn.Module) == ""
