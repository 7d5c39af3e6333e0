"""Block sizes and limits of the skinny products, each with its reason."""

#: Rows up to which dot products with the unpacked matrix beat packing it: a packed element then meets few panels.
FEW_ROWS_OF_DOTS = 64
#: Rows up to which streaming the unpacked matrix beats packing it: beyond, its sums pass through L2 once per block.
FEW_ROWS_OF_STREAM = 28
#: Rows of the large matrix read side by side: as many streams as the prefetchers follow, and the sums, which stay in
#: L1 or L2, are loaded and stored once for each block.
STREAM_ROWS = 16
