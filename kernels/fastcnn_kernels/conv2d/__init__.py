"""Op family ``conv2d``: 2-D convolution (cross-correlation) and its three gradients, NCHW.

With h = p stride_h - top + r dil_h and w = q stride_w - left + s dil_w, g the group of k, c counted inside the group,
and every sum taken over the taps whose (h, w) lies inside the image (zero padding takes no part):

    conv2d              out[n, k, p, q] = a(bias[k] + sum_{c, r, s} x[n, g C/G + c, h, w] weight[k, c, r, s])
    conv2d_grad_input   out[n, g C/G + c, h, w] = sum_{k in g, r, s} dy[n, k, p, q] weight[k, c, r, s]
    conv2d_grad_weight  out[k, c, r, s] = sum_{n, p, q} dy[n, k, p, q] x[n, g C/G + c, h, w]
    conv2d_grad_bias    out[k] = sum_{n, p, q} dy[n, k, p, q]

Signatures (every kernel of an op has the same one, called by keyword):

    conv2d(x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads)
    conv2d_grad_input(dy, weight, out, stride, padding, dilation, groups, num_threads)
    conv2d_grad_weight(dy, x, out, stride, padding, dilation, groups, num_threads)
    conv2d_grad_bias(dy, out, num_threads)

===========  ==========================================================================
x            (N, C, H, W)
weight       (K, C/groups, R, S)
bias         (K,) or None
dy           (N, K, P, Q)
out          the op's result: (N, K, P, Q), (N, C, H, W), (K, C/groups, R, S), (K,); overwritten
stride       (stride_h, stride_w)
padding      (top, bottom, left, right)
dilation     (dil_h, dil_w)
activation   a: None, "relu" or "relu6"
max_pool     1, or 2: out holds the maxima over windows of 2 x 2, (N, K, P // 2, Q // 2)
packed       None, or the `Prepacked` of `weight`, where kernels leave packed filters for later calls
===========  ==========================================================================

All arrays are C-contiguous and of one dtype, float32 or float64. Every dimension is at least 1.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
