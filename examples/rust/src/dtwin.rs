//! The part of dtwin.h that the example needs, and a safe model on top of it.

use std::ffi::{c_char, c_int, CStr, CString};
use std::mem::size_of;
use std::ptr::{null, null_mut};

#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

/// dtwin_model_sizes
#[repr(C)]
#[derive(Default)]
pub struct Sizes {
    struct_size: u32,
    pub cell: i32,
    pub head: i32,
    pub n_regions: i64,
    pub n_edges: i64,
    pub n_hidden: i64,
    pub n_inputs: i64,
    pub n_outputs: i64,
    pub n_actions: i64,
    pub n_bold_regions: i64,
    pub n_weights: i64,
    pub n_tasks: i64,
    pub dt_s: f64,
    pub tr_s: f64,
}

/// dtwin_task_sizes
#[repr(C)]
#[derive(Default)]
pub struct TaskSizes {
    struct_size: u32,
    pub n_steps: i64,
    pub n_trials: i64,
    pub n_volumes: i64,
    pub n_contrasts: i64,
}

/// dtwin_people
#[repr(C)]
struct People {
    struct_size: u32,
    n_threads: i32,
    unit: i32,
    missing: i32,
    n_subjects: i64,
    max_bytes: i64,
    edges: *const f32,
}

/// dtwin_predictions
#[repr(C)]
struct Predictions {
    struct_size: u32,
    n_tasks: i64,
    tasks: *const *const c_char,
    choice_prob: *mut f32,
    rt_s: *mut f32,
    contrasts: *mut f32,
    bold: *mut f32,
    diverged: *mut u8,
}

/// dtwin_edge_gradients
#[repr(C)]
struct EdgeGradients {
    struct_size: u32,
    n_tasks: i64,
    tasks: *const *const c_char,
    d_choice_prob: *const f32,
    d_rt_s: *const f32,
    d_contrasts: *const f32,
    d_bold: *const f32,
    d_edges: *mut f32,
}

extern "C" {
    fn dtwin_model_load(folder: *const c_char, model: *mut *mut Handle) -> c_int;
    fn dtwin_model_free(model: *mut Handle);
    fn dtwin_model_message() -> *const c_char;
    fn dtwin_model_get_sizes(model: *const Handle, sizes: *mut Sizes) -> c_int;
    fn dtwin_model_get_task_sizes(model: *const Handle, task: i64, sizes: *mut TaskSizes)
        -> c_int;
    fn dtwin_model_bold_region(model: *const Handle, region: i64) -> *const c_char;
    fn dtwin_model_task(model: *const Handle, task: i64) -> *const c_char;
    fn dtwin_model_contrast(model: *const Handle, task: i64, contrast: i64) -> *const c_char;
    fn dtwin_model_predict(
        model: *const Handle,
        people: *const People,
        predictions: *const Predictions,
    ) -> c_int;
    fn dtwin_model_vjp(
        model: *const Handle,
        people: *const People,
        gradients: *const EdgeGradients,
    ) -> c_int;
}

/// What the library says of its last failure on this thread.
fn checked(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    Err(text(unsafe { dtwin_model_message() }))
}

fn text(pointer: *const c_char) -> String {
    assert!(!pointer.is_null(), "there is no such name");
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

/// A trained twin. It does not change, so that threads may share it.
pub struct Model(*mut Handle);

unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { dtwin_model_free(self.0) }
    }
}

impl Model {
    pub fn load(folder: &str) -> Result<Self, String> {
        let folder = CString::new(folder).map_err(|error| error.to_string())?;
        let mut handle = null_mut();
        checked(unsafe { dtwin_model_load(folder.as_ptr(), &mut handle) })?;
        Ok(Self(handle))
    }

    pub fn sizes(&self) -> Result<Sizes, String> {
        let mut sizes = Sizes {
            struct_size: size_of::<Sizes>() as u32,
            ..Sizes::default()
        };
        checked(unsafe { dtwin_model_get_sizes(self.0, &mut sizes) })?;
        Ok(sizes)
    }

    pub fn task_sizes(&self, task: i64) -> Result<TaskSizes, String> {
        let mut sizes = TaskSizes {
            struct_size: size_of::<TaskSizes>() as u32,
            ..TaskSizes::default()
        };
        checked(unsafe { dtwin_model_get_task_sizes(self.0, task, &mut sizes) })?;
        Ok(sizes)
    }

    pub fn task(&self, task: i64) -> String {
        text(unsafe { dtwin_model_task(self.0, task) })
    }

    pub fn contrast(&self, task: i64, contrast: i64) -> String {
        text(unsafe { dtwin_model_contrast(self.0, task, contrast) })
    }

    pub fn bold_region(&self, region: i64) -> String {
        text(unsafe { dtwin_model_bold_region(self.0, region) })
    }

    /// Reaction times [S, N] in seconds and contrasts [S, K, regions] in one task, of people with
    /// these Pearson correlations [S, E].
    pub fn predict(&self, task: &str, edges: &[f32]) -> Result<(Vec<f32>, Vec<f32>), String> {
        let (people, sizes, task_sizes, name) = self.call(task, edges)?;
        let n_subjects = people.n_subjects as usize;
        let mut rt_s = vec![0.0; n_subjects * task_sizes.n_trials as usize];
        let n_effects = (task_sizes.n_contrasts * sizes.n_bold_regions) as usize;
        let mut contrasts = vec![0.0; n_subjects * n_effects];
        let predictions = Predictions {
            struct_size: size_of::<Predictions>() as u32,
            n_tasks: 1,
            tasks: &name.as_ptr(),
            choice_prob: null_mut(),
            rt_s: rt_s.as_mut_ptr(),
            contrasts: contrasts.as_mut_ptr(),
            bold: null_mut(),
            diverged: null_mut(),
        };
        checked(unsafe { dtwin_model_predict(self.0, &people, &predictions) })?;
        Ok((rt_s, contrasts))
    }

    /// Gradients [S, E] of a loss by edge, of those by contrast [S, K, regions].
    pub fn vjp(&self, task: &str, edges: &[f32], d_contrasts: &[f32]) -> Result<Vec<f32>, String> {
        let (people, sizes, task_sizes, name) = self.call(task, edges)?;
        let n_effects = people.n_subjects * task_sizes.n_contrasts * sizes.n_bold_regions;
        assert_eq!(d_contrasts.len(), n_effects as usize);
        let mut d_edges = vec![0.0; edges.len()];
        let gradients = EdgeGradients {
            struct_size: size_of::<EdgeGradients>() as u32,
            n_tasks: 1,
            tasks: &name.as_ptr(),
            d_choice_prob: null(),
            d_rt_s: null(),
            d_contrasts: d_contrasts.as_ptr(),
            d_bold: null(),
            d_edges: d_edges.as_mut_ptr(),
        };
        checked(unsafe { dtwin_model_vjp(self.0, &people, &gradients) })?;
        Ok(d_edges)
    }

    fn call(&self, task: &str, edges: &[f32]) -> Result<(People, Sizes, TaskSizes, CString), String> {
        let sizes = self.sizes()?;
        let number = (0..sizes.n_tasks).find(|&number| self.task(number) == task);
        let number = number.ok_or_else(|| format!("the model does not know the task {task}"))?;
        if edges.len() % sizes.n_edges as usize != 0 {
            return Err(format!("{} edges for each subject are wanted", sizes.n_edges));
        }
        let people = People {
            struct_size: size_of::<People>() as u32,
            n_threads: 0,
            unit: 0,    // DTWIN_PEARSON_R
            missing: 0, // DTWIN_MISSING_REJECT
            n_subjects: edges.len() as i64 / sizes.n_edges,
            max_bytes: 0,
            edges: edges.as_ptr(),
        };
        let name = CString::new(task).map_err(|error| error.to_string())?;
        Ok((people, sizes, self.task_sizes(number)?, name))
    }
}
