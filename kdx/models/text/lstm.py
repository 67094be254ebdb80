"""A recurrent text classifier: word vectors, one bidirectional LSTM, a linear layer."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from kdx.core.outputs import Outputs
from kdx.core.pretrained import tokenizer_file
from kdx.core.ranges import PositiveInt


class BiLSTM(nn.Module):
    """A bidirectional LSTM over learned token vectors; its two last states [B, 2 H] are the feature `pooled`.

    Args:
        width: Size of the token vectors.
        hidden: H, units of each direction.
        num_classes: Number of outputs.
        tokenizer: The data set's tokenizer, which sets the size of the vocabulary.
    """

    def __init__(self, width: PositiveInt, hidden: PositiveInt, num_classes: PositiveInt, tokenizer: str):
        super().__init__()
        self.words = nn.Embedding(tokenizer_file(tokenizer, "dataset.tokenizer").vocab_size, width)
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, num_classes)

    @property
    def head(self) -> nn.Linear:
        """The classifier."""
        return self.fc

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        # lengths are read on the CPU; a text without tokens has one, of padding
        lengths = inputs["attention_mask"].sum(1).clamp(min=1).cpu()
        words = self.words(inputs["input_ids"])
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        pooled = last.transpose(0, 1).flatten(1)
        return Outputs(self.fc(pooled), {"pooled": pooled})
