"""Another model that takes over what it can."""

import jax

from lm.adapt.surgery.surgery import inherited
from lm.core.component import component
from lm.core.errors import UserError
from lm.core.param import Tree
from lm.model.transformer import EncoderDecoder, LanguageModel, Model


@component
class Inherit:
    """A model of one's own: it takes the tensors whose path and shape agree with those of the old one, and all others
    begin anew. The run reports which."""

    new: LanguageModel | EncoderDecoder

    def model(self, model: Model) -> Model:
        theirs, ours = (jax.tree_util.tree_leaves_with_path(m.spec()) for m in (model, self.new))
        if not {(path, p.shape) for path, p in theirs} & {(path, p.shape) for path, p in ours}:
            raise UserError("Inherit.new has no tensor of the path and shape of one before: nothing would be taken")
        return self.new

    def params(self, old: Model, new: Model, params: Tree, key: jax.Array) -> Tree:
        return inherited(params, new)
