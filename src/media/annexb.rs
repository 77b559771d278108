//! Annex B byte streams (ITU-T H.264, annex B): finding NAL units and whole access units.
