//! Why noise was not drawn or not added.

use crate::reduce::SumOverflow;

/// Noise that could not be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// OpenDP's refusal.
    #[error("the noise could not be drawn: {0}")]
    OpenDp(String),
    /// The scale does not meet the target by OpenDP's own map.
    #[error("the noise scale does not meet the privacy that was promised")]
    TooSmall,
    /// A sum with its noise left 64 bits.
    #[error(transparent)]
    Overflow(#[from] SumOverflow),
    /// The sampler does not draw from its distribution.
    #[error(
        "the noise sampler failed its self-test (chi-square {chi_square:.1} on {degrees} degrees of freedom): this build must not release anything"
    )]
    SelfTest {
        /// What was found.
        chi_square: f64,
        /// Cells less one.
        degrees: usize,
    },
}

impl NoiseError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OpenDp(_) => "noise-library",
            Self::TooSmall => "noise-too-small",
            Self::Overflow(_) => "sum-overflow",
            Self::SelfTest { .. } => "noise-self-test",
        }
    }
}
