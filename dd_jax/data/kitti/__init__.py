"""KITTI raw and odometry: folders, calibration, published splits."""
