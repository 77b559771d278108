//! What a sequence parameter set says about its stream.
