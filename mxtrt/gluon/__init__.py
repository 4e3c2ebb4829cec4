"""mxtrt in Gluon: optimised blocks, and the backend ``"mxtrt"`` of MXNet's own methods.

    net = mxtrt.optimize(net, x)
    net.hybridize(backend="mxtrt")

`connect` runs when both MXNet and mxtrt are imported; the rest is loaded at its first use.
"""
