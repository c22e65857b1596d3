//! Loops over numbers in the host's memory, in vectors of whatever width the processor has.
//! Products and sums are rounded one by one: all processors give the same bits.

/// Calls a function as compiled for the widest vectors that the processor has.
macro_rules! widest {
    ($body:ident($($name:ident: $kind:ty),*)) => {{
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        {
            #[target_feature(enable = "avx512f")]
            fn with_avx512($($name: $kind),*) {
                $body($($name),*);
            }
            #[target_feature(enable = "avx2")]
            fn with_avx2($($name: $kind),*) {
                $body($($name),*);
            }
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has just been asked.
                unsafe { with_avx512($($name),*) }
            } else if is_x86_feature_detected!("avx2") {
                // SAFETY: the same.
                unsafe { with_avx2($($name),*) }
            } else {
                $body($($name),*);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        $body($($name),*);
    }};
}

pub(crate) use widest;

/// `exp(-u)` for u of at least 0, within 3e-7 relative; 0 beyond 87, where numbers of 32 bits end.
#[inline(always)]
pub(crate) fn exp_neg(u: f32) -> f32 {
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding it rounds to a whole number, which the lowest bits then hold.
    const ROUNDER: f32 = 12_582_912.0;
    let beyond = u > 87.0;
    let u = if beyond { 87.0 } else { u };
    let shifted = u * -std::f32::consts::LOG2_E + ROUNDER;
    let whole = shifted - ROUNDER;
    let r = (-u - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let mut sum = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + factor;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    if beyond { 0.0 } else { sum * power }
}
