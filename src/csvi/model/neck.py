"""What stands between a pooled feature and its scores: a batch norm without bias and a classifier without bias."""

from torch import nn


class BNNeck(nn.BatchNorm1d):
    """BatchNorm1d whose bias is 0 and not learned (Luo et al., "Bag of tricks", CVPRW 2019): (B, C) to (B, C).

    Metric losses read the feature before it; the classifier and most tests read its output. Public code keeps the bias
    as a frozen parameter. Here there is none, so that every parameter has a gradient.

    Args:
        channels: C.
        weight_std: standard deviation of the initial weights around 1; .01 in the code that follows AGW, 0 in that of
            MPANet and PMT.
    """

    def __init__(self, channels: int, weight_std: float = 0.01):
        super().__init__(channels)
        nn.init.normal_(self.weight, 1, weight_std)
        self.register_parameter("bias", None)


class Classifier(nn.Linear):
    """Linear without bias, from a feature (B, C) to scores (B, L); initial weights are N(0, std), small as in AGW.

    Args:
        channels: C.
        identities: L.
        std: standard deviation of the initial weights.
    """

    def __init__(self, channels: int, identities: int, std: float = 0.001):
        super().__init__(channels, identities, bias=False)
        nn.init.normal_(self.weight, std=std)
