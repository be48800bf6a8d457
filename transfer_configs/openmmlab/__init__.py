"""Detection and segmentation in mmdetection and mmsegmentation."""
